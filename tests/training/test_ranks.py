"""Law 12: sharded = replicated = one process, on ranks of gloo.

Runs of 10 steps on 2 and 4 ranks, weights whole or in parts, against the same run on one process
(`bench/ranks.py` makes 100).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.ranks import on_ranks
from support.tiny import write_rows

from onestage.models.probe import Fit
from onestage.models.sharding import local
from onestage.runfolder import read_metrics, silent
from onestage.training import devices
from onestage.training.callbacks import Callback
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe

Make = Callable[..., dict[str, Any]]
LAYOUTS = {
    "2 whole": (2, "none", 1),
    "2 in parts": (2, "full", 1),
    "4 in parts": (4, "full", 1),
    "4 as two copies": (4, "hybrid", 2),
}
"""Ranks, sharding, nodes."""
WORDS = ("sea", "wind", "moon", "Paris", "red", "hello", "morning", "poem")


def go(recipe: Mapping[str, Any], out: Path, resume: bool = False) -> list[dict[str, Any]]:
    def told(line: str) -> None:
        assert "all completions of a batch end" not in line  # places are given on here too

    carry_out(parse_recipe(recipe), out, resume=resume, say=told, self_check=False)
    return read_metrics(out)


def spread(recipe: dict[str, Any], layout: str, out: Path, resume: bool = False) -> Any:
    """The metrics of a run on some ranks, of which every one must end."""
    ranks, sharding, nodes = LAYOUTS[layout]
    told = {**recipe, "distributed": {"sharding": sharding}}
    return on_ranks(ranks, go, told, out, resume, nodes=nodes, seconds=100)[0]


def weights(out: Path, folder: str = "model") -> dict[str, torch.Tensor]:
    (file,) = (out / folder).glob("*.safetensors")
    return load_file(file)


def agree(one: list[dict[str, Any]], other: list[dict[str, Any]], times: float = 1.0) -> None:
    for mine, theirs in zip(one, other, strict=True):
        assert mine.keys() == theirs.keys()
        for name in filter(compared, mine):
            loss = name.endswith("loss")
            # A price is a difference of losses by a difference of measures.
            close = times * (1e-6 if loss else 1e-4 if name.endswith("price") else 2e-5)
            # Of the loss itself the target is absolute, however large it is.
            rel = 0.0 if name == "loss" and times == 1 else close
            assert theirs[name] == pytest.approx(mine[name], rel=rel, abs=close), name


@pytest.fixture
def tasks(recipe_of: Make, tmp_path: Path) -> Callable[[str], dict[str, Any]]:
    """A recipe of some name: what is trained, by which schedule."""

    def make(name: str) -> dict[str, Any]:
        what, how = name.split()
        train = {"train__max_steps": 10, "train__learning_rate": 1e-3, "train__batch_size": 8}
        budget = {"train__tokens_per_row": 128}
        if what == "grpo":
            file = write_rows(
                tmp_path / "asked.jsonl", [{"prompt": f"{w}?", "answer": w} for w in WORDS]
            )
            recipe = recipe_of("demonstration", objective="grpo", **train, **budget)
            judge = {"name": "function", "path": f"{_judge(tmp_path)}:vowels"}
            recipe["data"] = [{"name": "asked", "path": str(file), "reward": judge}]
            recipe["rollout"] = {"max_completion_length": 8, "num_generations": 4}
            recipe["rollout"]["engine"] = {"name": "transformers", "batch_size": 3}
            recipe["train"] |= {"batch_size": 2, "max_steps": 6}
        elif what == "mix":
            recipe = recipe_of("demonstration", "pair", **train, **budget)
            recipe["objective"] = {"demonstration": "sft", "pair": "dpo"}
            recipe["schedule"], recipe["train"]["max_steps"] = "mix", 6
        elif what == "maxright":
            recipe = recipe_of("demonstration", "pair", **train, **budget)
            recipe["objective"] = {"demonstration": "sft", "pair": "dpo"}
            recipe["schedule"] = "maxright"
            recipe["optimum"] = {"given": {"sft": 0.5, "dpo": 0.1}}
        else:
            recipe = recipe_of(**train, **budget)
        if what == "kept":  # weights go back at most measurements; a row for every rank, and more
            text = [
                {"text": f"The {a} and the {b} are {c}."} for a, b, c in permutations(WORDS[:6], 3)
            ]
            of = {"name": "old", "path": str(write_rows(tmp_path / "old.jsonl", text))}
            bound = {"what": "kl", "at_most": 1e-3, "by": "anchor", "of": of, "steps": 2}
            recipe["keep"] = [bound | {"watch_tokens": 700}]
            recipe["train"]["max_steps"] = 8
        if how == "lora":
            recipe["model"]["lora"] = {"r": 4}
        return recipe

    return make


def _judge(folder: Path) -> Path:
    """A reward that an untrained model earns now and then."""
    file = folder / "judge.py"
    file.write_text(
        "def vowels(completion, **row):\n    return sum(c in 'aeiou' for c in completion) / 8\n"
    )
    return file


CASES = [
    ("uft full", "2 whole"),
    ("uft full", "2 in parts"),
    ("uft full", "4 as two copies"),
    ("uft lora", "4 in parts"),
    ("maxright full", "2 in parts"),
    ("mix full", "2 in parts"),  # of two terms in a step, whose gradients the gauges read
    ("mix lora", "2 in parts"),
    ("kept full", "2 in parts"),
    ("grpo full", "2 whole"),
    ("grpo lora", "2 in parts"),
]


ALONE: dict[str, tuple[list[dict[str, Any]], dict[str, torch.Tensor]]] = {}
"""What one process came to, by task, and the weights that it saved."""


def compared(name: str) -> bool:
    """Not the clock's, and not what trees save: many ranks join fewer records, to have equal work."""
    return "second" not in name and name != "forest_saving"


@pytest.mark.parametrize(("task", "layout"), CASES)
def test_ranks_do_what_one_process_does(
    tasks: Callable[[str], dict[str, Any]], tmp_path: Path, task: str, layout: str
) -> None:
    recipe = tasks(task)
    if task not in ALONE:
        ALONE[task] = go(recipe, tmp_path / "one"), weights(tmp_path / "one")
    one, mine = ALONE[task]
    assert any("gauge/cosine/sft/dpo" in line for line in one) == task.startswith("mix")
    many = spread({**recipe, "cache_dir": str(tmp_path / "own")}, layout, tmp_path / "many")
    # What is watched is a KL of .001, the difference of numbers a thousand times as large, and steers.
    agree(one, many, times=10 if task.startswith("kept") else 1)
    theirs = weights(tmp_path / "many")
    assert mine.keys() == theirs.keys()  # and not a rank's part of them
    for name, tensor in mine.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=0, atol=2e-5, msg=name)


@pytest.mark.parametrize("how", ["full", "lora"])
def test_a_run_goes_on_with_other_ranks(
    tasks: Callable[[str], dict[str, Any]], tmp_path: Path, how: str
) -> None:
    """2 -> 4 -> 1 (adapters: 2 -> 1): a checkpoint in parts is read by who lies in others; the average
    goes along."""
    recipe = tasks(f"uft {how}")
    recipe["train"] |= {"max_steps": 6, "save_steps": 2, "average": "ema", "average_decay": 0.5}
    one = go(recipe, tmp_path / "one")
    out, recipe["cache_dir"] = tmp_path / "many", str(tmp_path / "own")
    spread(recipe, "2 in parts", out)
    _forget(out, after=2)
    if how == "full":
        spread(recipe, "4 as two copies", out, resume=True)
        _forget(out, after=4)
    agree(one, go(recipe, out, resume=True))
    for folder in ("model", "model_last"):
        mine, theirs = (
            load_file(next((x / folder).glob("*.safetensors"))) for x in (tmp_path / "one", out)
        )
        for name, tensor in mine.items():
            torch.testing.assert_close(theirs[name], tensor, rtol=0, atol=2e-5, msg=name)


def test_a_run_of_one_process_goes_on_in_parts_and_bit_for_bit_on_as_many(
    tasks: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    """In bfloat16, where the parts are the masters, and where what a row says is rounded otherwise in
    another row: to two digits, so that ranks agree to fewer."""
    recipe = tasks("uft full")
    recipe["model"]["dtype"] = "bfloat16"
    recipe["train"] |= {"max_steps": 4, "save_steps": 2}
    straight = spread(
        {**recipe, "cache_dir": str(tmp_path / "a")}, "2 in parts", tmp_path / "straight"
    )
    _forget(tmp_path / "straight", after=2)
    again = spread(recipe, "2 in parts", tmp_path / "straight", resume=True)
    cut = go(recipe, tmp_path / "cut")
    agree(cut, straight, times=300)
    _forget(tmp_path / "cut", after=2)
    agree(cut, spread(recipe, "2 in parts", tmp_path / "cut", resume=True), times=300)
    assert {w.dtype for w in weights(tmp_path / "cut").values()} == {torch.bfloat16}
    for mine, theirs in zip(straight, again, strict=True):
        assert [v for k, v in mine.items() if "second" not in k] == [
            v for k, v in theirs.items() if "second" not in k
        ]


def _forget(out: Path, after: int) -> None:
    """A run as it was when it was cut off after a step."""
    for folder in (*(out / "checkpoints").glob("step-*"), *out.glob("model*")):
        if folder.name.startswith("model") or int(folder.name.removeprefix("step-")) > after:
            shutil.rmtree(folder)


def test_layers_that_are_kept_are_not_old_ones(
    tasks: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    """Without reshard_after_forward a layer stays together after an evaluation, and was then trained on
    as it had been; with everything else that a run may ask beside a step."""
    recipe = tasks("uft lora")
    recipe["train"] |= {"max_steps": 4, "eval_steps": 1, "delta_l1": 1e-3, "average": "tail"}
    for stream in recipe["data"]:
        stream["eval_path"] = stream["path"]
    recipe["probe"] = {"steps": 2}
    one = go(recipe, tmp_path / "one")
    told = {"sharding": "full", "reshard_after_forward": False, "cpu_offload": True}
    recipe |= {"distributed": told, "cache_dir": str(tmp_path / "own")}
    agree(one, on_ranks(2, go, recipe, tmp_path / "many", seconds=100)[0])


def test_a_model_that_is_run_path_by_path_lies_in_parts(
    tasks: Callable[[str], dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of one turn hold different numbers of paths, and ranks wait for each other at each."""
    recipe = tasks("uft full")
    recipe["train"] |= {"max_steps": 3}
    one = go(recipe, tmp_path / "one")
    monkeypatch.setattr(devices, "probe", lambda policy: Fit("alone", True, "told to"))
    many = spread({**recipe, "cache_dir": str(tmp_path / "own")}, "2 in parts", tmp_path / "many")
    agree(one, many)


def test_a_base_of_four_bits_lies_in_parts(
    recipe_of: Make, model_folder: Path, tmp_path: Path
) -> None:
    """Computed with in bfloat16, so that other rows are rounded otherwise: the same rows on ranks."""
    pytest.importorskip("bitsandbytes")  # extra: quantized
    recipe = recipe_of("demonstration", "pair", train__learning_rate=1e-3, train__max_steps=6)
    recipe["model"] = {"name": str(model_folder), "load_in_4bit": True, "lora": {"r": 2}}
    recipe["train"] |= {"save_steps": 3}
    held: list[int] = []

    class Held(Callback):
        def begin(self, run: Any) -> None:
            packed = [m.weight for m in run.policy.modules() if type(m).__name__ == "Linear4bit"]
            held.append(sum(local(weight).nbytes for weight in packed))

    def work(sharding: str, resume: bool = False) -> Any:
        told, out = {**recipe, "distributed": {"sharding": sharding}}, tmp_path / sharding
        carry_out(
            parse_recipe(told), out, resume=resume, say=silent, callbacks=[Held()], self_check=False
        )
        return read_metrics(out), held

    (whole, (every,)), _ = on_ranks(2, work, "none", seconds=100)
    (parts, (half,)), _ = on_ranks(2, work, "full", seconds=100)
    assert half == pytest.approx(every / 2, rel=0.1)
    agree(whole, parts)
    agree(go(recipe, tmp_path / "one"), parts, times=300)
    mine, theirs = weights(tmp_path / "none"), weights(tmp_path / "full")
    assert mine.keys() == theirs.keys()
    assert all(weight.any() for name, weight in theirs.items() if "lora_B" in name)
    for name, tensor in mine.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=0, atol=2e-5, msg=name)
    _forget(tmp_path / "full", after=3)
    on_ranks(2, work, "full", True, seconds=100)
    again = weights(tmp_path / "full")
    assert all(torch.equal(again[name], tensor) for name, tensor in theirs.items())


def test_value_heads_and_reward_models_lie_in_parts_too(recipe_of: Make, tmp_path: Path) -> None:
    reward = recipe_of("pair", objective="bradley_terry")
    reward["model"]["task"] = "reward"
    judge = {"name": "function", "path": f"{_judge(tmp_path)}:vowels"}
    file = write_rows(tmp_path / "asked.jsonl", [{"prompt": f"{w}?", "answer": w} for w in WORDS])
    ppo = recipe_of("demonstration", "pair", objective={"check": "ppo", "pair": "dpo"})
    ppo["data"] = [{"name": "asked", "path": str(file), "reward": judge}, ppo["data"][1]]
    ppo["rollout"] = {"max_completion_length": 4, "num_generations": 2}
    ppo["schedule"] = "alright"  # steps that ask the head, and steps that do not
    for name, recipe in (("reward", reward), ("ppo", ppo)):
        one = go(recipe, tmp_path / name)
        for layout in ("2 whole", "2 in parts"):
            told = {**recipe, "cache_dir": str(tmp_path / layout)}
            agree(one, spread(told, layout, tmp_path / f"{name} {layout}"))
