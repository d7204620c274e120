"""What goes wrong on many ranks is one line: where they differ, where one stops, what cannot be."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from support import forked
from support.ranks import on_ranks
from support.tiny import write_recipe, write_rows

from onestage.config import RecipeError
from onestage.data.stream import Stream
from onestage.training import build
from onestage.training.checkpoints import Checkpoints
from onestage.training.distributed import Distributed, of_launcher
from onestage.training.parts import make_accelerator
from onestage.training.pipeline import carry_out
from onestage.training.read import Data
from onestage.training.recipe import Train, parse_recipe
from onestage.training.same_run import CheckpointError

Make = Callable[..., dict[str, Any]]
FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}


def go(recipe: dict[str, Any], out: Path, resume: bool = False) -> None:
    carry_out(parse_recipe(recipe), out, resume=resume, say=lambda line: None)


def test_ranks_that_are_told_other_things_are_refused(recipe_of: Make, tmp_path: Path) -> None:
    def as_told(recipe: dict[str, Any], out: Path) -> str:
        if os.environ["RANK"] == "1":
            recipe["train"]["learning_rate"] = 0.5
        with pytest.raises(RecipeError) as refused:
            go(recipe, out)
        return str(refused.value)

    def as_read(recipe: dict[str, Any], out: Path) -> str:
        # A node whose file of the same name holds other rows.
        if os.environ["RANK"] == "1":
            rows, read = [{"prompt": "Q?", "completion": " other"}], build.read_data
            file = Path(recipe["data"][0]["path"])
            (elsewhere := file.parent / "node1").mkdir()
            path = str(write_rows(elsewhere / file.name, rows))

            def other(streams: Sequence[Stream], *given: Any) -> Data:
                return read([streams[0].model_copy(update={"path": path})], *given)

            build.read_data = other  # type: ignore[assignment]
        with pytest.raises(RecipeError) as refused:
            go(recipe, out)
        return str(refused.value)

    recipe = recipe_of("demonstration", objective="sft")
    for said in on_ranks(2, as_told, recipe, tmp_path / "a", seconds=30):
        assert "rank 1 has another train.learning_rate in its recipe than rank 0 (0." in said
    for said in on_ranks(2, as_read, recipe, tmp_path / "b", nodes=2, seconds=30):
        assert "rank 1 has another train data of demonstrations than rank 0" in said


def test_where_a_rank_stops_all_stop_and_its_message_is_told(
    recipe_of: Make, tmp_path: Path
) -> None:
    judge = tmp_path / "judge.py"
    judge.write_text(
        "import os\n"
        "def judge(completion, **row):\n"
        "    assert os.environ.get('RANK') != '1', 'the judge of rank 1 broke'\n"
        "    return 0.0\n"
    )
    asked = write_rows(
        tmp_path / "asked.jsonl", [{"prompt": f"{n}?", "answer": "1"} for n in range(8)]
    )
    recipe = recipe_of("demonstration", objective="grpo")
    reward = {"name": "function", "path": f"{judge}:judge"}
    recipe["data"] = [{"name": "asked", "path": str(asked), "reward": reward}]
    recipe["rollout"] = {"max_completion_length": 4, "on_failure": "stop"}
    recipe["distributed"] = {"sharding": "full"}
    file, began = write_recipe(tmp_path / "recipe.yaml", recipe), time.monotonic()
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += [
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        "localhost:0",
        "-m",
        "onestage",
        "train",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [*command, str(file), "--out", str(tmp_path / "out")]
    done = forked.run(words, env=environment, timeout=200)
    assert done.returncode != 0
    assert time.monotonic() - began < 60
    said = done.stdout + done.stderr
    assert "the judge of rank 1 broke" in said
    assert (
        'Traceback (most recent call last):\n  File "/'
        not in said.split("torch.distributed.elastic")[0]
    )


def test_a_checkpoint_without_a_part_is_no_checkpoint(recipe_of: Make, tmp_path: Path) -> None:
    recipe = recipe_of("demonstration", objective="sft")
    recipe["train"] |= {"max_steps": 2, "save_steps": 1}
    recipe["distributed"] = {"sharding": "full"}
    on_ranks(2, go, recipe, tmp_path / "out", seconds=60)
    first, last = Checkpoints(tmp_path / "out").all()
    (last / "state" / "__1_0.distcp").unlink()
    with pytest.raises(CheckpointError, match=rf"__1_0.distcp is missing.*go on from {first.name}"):
        Checkpoints(tmp_path / "out").newest()


def test_a_full_disk_of_one_rank_is_told_by_all(recipe_of: Make, tmp_path: Path) -> None:
    def full(recipe: dict[str, Any], out: Path) -> str:
        if os.environ["RANK"] == "1":
            _fill_up()
        with pytest.raises(OSError) as refused:
            go(recipe, out)
        return str(refused.value)

    recipe = recipe_of("demonstration", objective="sft")
    recipe["train"] |= {"max_steps": 2, "save_steps": 1}
    recipe["distributed"] = {"sharding": "full"}
    for said in on_ranks(2, full, recipe, tmp_path / "out", seconds=60):
        assert "rank 1" in said
        assert "no room" in said or "No space left" in said
    assert not Checkpoints(tmp_path / "out").all()


def _fill_up() -> None:
    """From now on this rank cannot write its parts."""
    from torch.distributed.checkpoint import filesystem

    def no_space(*given: Any, **more: Any) -> None:
        raise OSError(28, "No space left on device")

    filesystem._write_item = no_space


def test_files_of_accelerate_say_what_the_section_says() -> None:
    asked = {**FSDP, "FSDP_RESHARD_AFTER_FORWARD": "false", "FSDP_OFFLOAD_PARAMS": "true"}
    found = of_launcher(Distributed(), asked)
    assert (found.sharding, found.reshard_after_forward, found.cpu_offload) == ("full", False, True)
    copies = {**FSDP, "PARALLELISM_CONFIG_DP_REPLICATE_SIZE": "2"}
    assert of_launcher(Distributed(), copies).sharding == "hybrid"
    assert of_launcher(found, asked) == found
    with pytest.raises(RecipeError, match=r"cpu_offload is false in the recipe and true in"):
        of_launcher(Distributed(cpu_offload=False), asked)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        (
            {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"},
            "DeepSpeed.*sharding: full, reshard_after_forward: false",
        ),
        ({"ACCELERATE_USE_FSDP": "true"}, "FSDP1.*sharding: full"),
        ({**FSDP, "FSDP_VERSION": "1", "FSDP_SHARDING_STRATEGY": "4"}, "FSDP1.*sharding: hybrid"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "Megatron-LM.*sharding: full"),
    ],
)
def test_other_engines_are_refused_in_our_words(environment: dict[str, str], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        of_launcher(Distributed(), environment)


KEPT = {"what": "kl", "at_most": 0.1, "of": {"name": "old", "path": "old.jsonl"}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"distributed": {"cpu_offload": True}}, "would do nothing without parts"),
        ({"distributed": {"sharding": "full"}, "train__optim": "adafactor"}, "train.optim is adaf"),
        (
            {"distributed": {"sharding": "full"}, "model__lora": {"r": 2, "preserve_rank": 1}},
            "does not cut adapters that are kept off some directions",
        ),
        (
            {"distributed": {"sharding": "full"}, "keep": [KEPT]},
            "keep old: by: kl was never tried with weights in parts; take by: replay, or",
        ),
    ],
)
def test_what_cannot_lie_in_parts_is_refused(
    recipe_of: Make, changes: dict[str, Any], said: str
) -> None:
    draft = build.Draft(parse_recipe(recipe_of("demonstration", objective="sft", **changes)))
    assert any(said in str(one) for one in draft.conflicts)


def test_parts_need_ranks_to_lie_on(recipe_of: Make, tmp_path: Path) -> None:
    recipe = recipe_of("demonstration", objective="sft", distributed={"sharding": "full"})
    with pytest.raises(RecipeError, match="this is one alone; start it with torchrun"):
        go(recipe, tmp_path / "out")


def test_a_process_that_is_left_of_several_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `accelerate launch` does of a file of the type MULTI_CPU where there is no mpirun."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(RecipeError, match=r"this is the only one; .*torchrun --nproc-per-node N"):
        make_accelerator(Train())
    monkeypatch.delenv("MASTER_ADDR")
    assert make_accelerator(Train()).num_processes == 1


def test_more_processes_than_a_machine_has_devices_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "64")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "64")
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 8)
    with pytest.raises(RecipeError, match=r"64 processes .* 8 devices .*--nproc-per-node 8"):
        make_accelerator(Train())
