"""The loop: laws 1, 6, 8 and 9 on whole runs of a tiny Llama."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.ranks import train_under_torchrun
from support.tiny import write_recipe, write_rows
from transformers import AutoModelForCausalLM

from onestage.config import RecipeError
from onestage.data.packing import pack_records
from onestage.models.reference import InitialWeights
from onestage.runfolder import OutputError, read_metrics
from onestage.runfolder.disk import DiskFullError
from onestage.training.build import build
from onestage.training.callbacks import Callback
from onestage.training.forward import reference_of, row_loss
from onestage.training.loop import NonFiniteError, take_step
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe
from onestage.training.run import Run
from onestage.training.same_run import CheckpointError

Make = Callable[..., dict[str, Any]]


def quiet(line: str) -> None:
    return None


def go(recipe: dict[str, Any], out: Path, **options: Any) -> list[dict[str, Any]]:
    carry_out(parse_recipe(recipe), out, **{"say": quiet, **options})
    return read_metrics(out)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


def same(left: Path, right: Path) -> bool:
    mine, theirs = weights(left), weights(right)
    return all(torch.equal(mine[name], theirs[name]) for name in mine)


EACH_KIND = ("demonstration", "score", "label", "pair", "group", "text")


def test_one_run_on_every_kind(recipe_of: Make, tmp_path: Path) -> None:
    lines = go(recipe_of(train__max_steps=8), tmp_path / "out")
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert (tmp_path / "out" / "model" / "model.safetensors").is_file()
    for name in ("recipe.yaml", "manifest.json", "data.json"):
        assert (tmp_path / "out" / name).stat().st_size > 0
    found = set().union(*lines)
    for kind in EACH_KIND:
        assert {f"{kind}s/loss", f"{kind}s/implicit_reward", f"{kind}s/logp"} <= found
    assert {"pairs/margin", "pairs/accuracy", "pairs/chosen_log_ratio"} <= found
    assert {"pairs/rejected_log_ratio", "labels/label_accuracy", "tokens"} <= found
    assert lines[-1]["tokens"] > lines[0]["tokens"] > 0
    parts = [v for line in lines for k, v in line.items() if k.endswith("/tokens")]
    assert sum(parts) == lines[-1]["tokens"]
    assert {"grad_norm", "grad_clip_rate", "tokens_per_second", "learning_rate"} <= found


START = {
    "uft-demonstration": ({"name": "uft"}, "demonstration", 0.25),
    "uft-label": ({"name": "uft"}, "label", 0.25),
    "uft-label-bce": ({"name": "uft", "loss": "bce"}, "label", math.log(2)),
    "uft-score": ({"name": "una"}, "score", sum((i / 7 - 0.5) ** 2 for i in range(8)) / 8),
    "uft-pair": ("uft", "pair", math.log(2)),
    "dpo": ("dpo", "pair", math.log(2)),
    "kto": ("kto", "label", 0.5),
    "ipo": ("ipo", "pair", 25.0),
}


@pytest.mark.parametrize("name", START)
@pytest.mark.parametrize("lora", [False, True])
def test_the_first_loss_is_the_start_value(
    name: str, lora: bool, recipe_of: Make, tmp_path: Path
) -> None:
    """Law 1, through the whole program: one full-batch step, with and without a fresh adapter."""
    objective, kind, want = START[name]
    recipe = recipe_of(kind, objective=objective, train__max_steps=1, train__batch_size=8)
    recipe["train"]["batch_size"] = 10 if kind == "demonstration" else 8
    if lora:
        recipe["model"]["lora"] = {"r": 2}
    (line,) = go(recipe, tmp_path / "out")
    assert line["loss"] == pytest.approx(want, rel=1e-4)


def session_of(recipe: dict[str, Any], out: Path) -> Run:
    session = build(parse_recipe(recipe), out, say=quiet)
    session.fill_reference()
    return session


def gradients(run: Run, records: Any, tokens_per_row: int) -> tuple[float, list[torch.Tensor]]:
    """Loss and gradients of a step when rows hold so many tokens."""
    batch = pack_records(records, tokens_per_row)
    counts = run.terms.count(records)
    total = 0.0
    run.optimizer.zero_grad()
    for row in batch.rows:
        loss, _ = row_loss(run, row, batch, run.schedule.weigh(0), counts)
        loss.backward()
        total += loss.item()
    grads = [p.grad.clone() for p in run.policy.parameters() if p.grad is not None]
    return total, grads


MIXED = {
    "demonstration": "sft",
    "text": "sft",
    "pair": "dpo",
    "label": "kto",
    "score": "uft",
    "group": "uft",
}


@pytest.mark.parametrize("objective", [{"name": "uft", "beta": 0.1}, MIXED])
def test_loss_and_gradient_do_not_depend_on_packing_or_order(
    objective: Any, recipe_of: Make, tmp_path: Path
) -> None:
    """Law 6: rows of any size, and records in any order."""
    recipe = recipe_of(objective=objective, train__batch_size=24)
    session = session_of(recipe, tmp_path / "out")
    run = session
    terms, weights = list(run.terms.objectives), run.schedule.weigh(0)
    parameters = list(run.policy.parameters())
    take_step(run, parameters, run.feeds.draw(terms), weights)  # away from zero reward
    records = run.feeds.draw(terms)
    loss, grads = gradients(run, records, 4096)
    for other_records, size in ((records, 64), (list(reversed(records)), 200)):
        other_loss, other = gradients(run, other_records, size)
        assert other_loss == pytest.approx(loss, rel=1e-5)
        for left, right in zip(grads, other, strict=True):
            torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-6)


def test_several_objectives_weigh_by_their_share_of_records(
    recipe_of: Make, tmp_path: Path
) -> None:
    """sft on demonstrations, dpo on pairs: L = share_d * mean NLL + share_p * mean DPO."""
    recipe = recipe_of("demonstration", "pair", objective={"demonstration": "sft", "pair": "dpo"})
    recipe["train"] |= {"max_steps": 1, "batch_size": 18}
    (line,) = go(recipe, tmp_path / "out")
    want = 10 / 18 * line["demonstrations/loss"] + 8 / 18 * line["pairs/loss"]
    assert line["loss"] == pytest.approx(want, rel=1e-5)


def test_training_learns_what_it_is_given(recipe_of: Make, tmp_path: Path) -> None:
    recipe = recipe_of("demonstration", "pair", objective={"demonstration": "sft", "pair": "dpo"})
    recipe["train"] |= {"max_steps": 30, "batch_size": 18}
    lines = go(recipe, tmp_path / "out")
    assert lines[-1]["demonstrations/loss"] < 0.5 * lines[0]["demonstrations/loss"]
    assert lines[-1]["pairs/accuracy"] == 1.0
    assert lines[-1]["pairs/margin"] > 0.5


@pytest.mark.parametrize("lora", [False, True])
def test_a_saved_model_is_the_one_in_memory(lora: bool, recipe_of: Make, tmp_path: Path) -> None:
    """Law 8: reloaded by plain transformers or PEFT, the same logits."""
    recipe = recipe_of("demonstration", "pair")
    if lora:
        base = tmp_path / "base"
        session = build(parse_recipe(recipe_of("text", objective="sft")), tmp_path / "b", say=quiet)
        session.loaded.model.save_pretrained(base)
        session.loaded.tokenizer.save_pretrained(base)
        recipe["model"] = {"name": str(base), "lora": {"r": 4, "alpha": 8}}
    session = session_of(recipe, tmp_path / "out")
    folder = session.train()
    if lora:
        from peft import AutoPeftModelForCausalLM

        loaded = AutoPeftModelForCausalLM.from_pretrained(folder)
        assert not (folder / "model.safetensors").exists()
    else:
        loaded = AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.arange(2, 40)[None]
    mine = session.policy.model.eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded.eval()(ids).logits, mine(ids).logits, rtol=0, atol=1e-5)


def test_an_adapter_folder_is_trained_further(recipe_of: Make, tmp_path: Path) -> None:
    """The run starts from the trained adapter, which is its reference too."""
    base = tmp_path / "base"
    session = build(parse_recipe(recipe_of("text", objective="sft")), tmp_path / "b", say=quiet)
    session.loaded.model.save_pretrained(base)
    session.loaded.tokenizer.save_pretrained(base)
    first = recipe_of("demonstration", objective="sft")
    first["model"] = {"name": str(base), "lora": {"r": 2}}
    go(first, tmp_path / "one")
    second = recipe_of("pair", objective="dpo", train__max_steps=1, train__batch_size=8)
    second["model"] = {"name": str(tmp_path / "one" / "model")}
    (line,) = go(second, tmp_path / "two")
    assert line["loss"] == pytest.approx(math.log(2), rel=1e-5)
    second["model"]["lora"] = {"r": 2}
    with pytest.raises(ValueError, match="already an adapter"):
        go(second, tmp_path / "three")


class StopAt(Callback):
    """Sends the process SIGTERM after a step, as a job scheduler would."""

    def __init__(self, step: int) -> None:
        self.at = step

    def step(self, run: Run, loss: float) -> None:
        if run.step == self.at:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("objective", [{"name": "uft", "beta": 0.1, "offset": "learned"}, MIXED])
def test_stopped_and_resumed_is_bit_for_bit_the_same(
    objective: Any, every: int, recipe_of: Make, tmp_path: Path
) -> None:
    """Law 9, by SIGTERM in the middle, of the run and of what a line of metrics is about."""
    recipe = recipe_of(objective=objective, train__max_steps=7, train__lr_scheduler_type="cosine")
    recipe["train"]["logging_steps"] = every
    whole = go(recipe, tmp_path / "whole")
    go(recipe, tmp_path / "cut", callbacks=[StopAt(3)])
    assert not (tmp_path / "cut" / "model").exists()
    assert [line["step"] for line in read_metrics(tmp_path / "cut")] == [1, 2, 3][
        every - 1 :: every
    ]
    resumed = go(recipe, tmp_path / "cut", resume=True)
    assert same(tmp_path / "whole" / "model", tmp_path / "cut" / "model")
    timing = {"tokens_per_second"}
    for left, right in zip(whole, resumed, strict=True):
        assert {k: v for k, v in left.items() if k not in timing} == {
            k: v for k, v in right.items() if k not in timing
        }


def test_lora_with_dropout_resumes_exactly(recipe_of: Make, tmp_path: Path) -> None:
    recipe = recipe_of("demonstration", "pair", train__max_steps=5)
    recipe["model"]["lora"] = {"r": 2, "dropout": 0.3}
    go(recipe, tmp_path / "whole")
    go(recipe, tmp_path / "cut", callbacks=[StopAt(2)])
    go(recipe, tmp_path / "cut", resume=True)
    name = "adapter_model.safetensors"
    left, right = ((tmp_path / run / "model" / name).read_bytes() for run in ("whole", "cut"))
    assert left == right


def test_checkpoints_keep_last_best_and_n(recipe_of: Make, tmp_path: Path) -> None:
    recipe = recipe_of("demonstration", objective="sft")
    file = write_rows(tmp_path / "held.jsonl", [{"prompt": "what is", "completion": " the sea"}])
    recipe["data"][0]["eval_path"] = str(file)
    recipe["train"] |= {"max_steps": 8, "eval_steps": 2, "save_steps": 1, "save_total_limit": 2}
    recipe["train"]["learning_rate"] = 0.3  # so large that later evaluations are worse
    lines = go(recipe, tmp_path / "out")
    losses = {line["step"]: line["eval/loss"] for line in lines if "eval/loss" in line}
    assert list(losses) == [2, 4, 6, 8]
    assert {"eval/demonstrations/loss", "eval/demonstrations/demonstration/loss"} <= set().union(
        *lines
    )
    folder = tmp_path / "out" / "checkpoints"
    best = min(losses, key=losses.__getitem__)
    assert (folder / "best").resolve().name == f"step-{best:06d}"
    assert (folder / "last").resolve().name == "step-000008"
    kept = {path.name for path in folder.glob("step-*")}
    assert kept == {"step-000007", "step-000008", f"step-{best:06d}"}


def test_evaluation_changes_nothing(recipe_of: Make, tmp_path: Path) -> None:
    recipe = recipe_of("demonstration", "pair")
    go(recipe, tmp_path / "without")
    for stream in recipe["data"]:
        stream["eval_path"] = stream["path"]
    recipe["train"]["eval_steps"] = 1
    lines = go(recipe, tmp_path / "with")
    assert same(tmp_path / "without" / "model", tmp_path / "with" / "model")
    assert sum("eval/loss" in line for line in lines) == 4


def test_the_reference_is_found_again(recipe_of: Make, tmp_path: Path) -> None:
    said: list[str] = []
    recipe = parse_recipe(recipe_of("pair", objective="dpo"))
    for out in ("one", "two"):
        carry_out(recipe, tmp_path / out, say=said.append)
    lines = [line for line in said if line.startswith("reference")]
    assert ": 0 paths found in the cache, 16 computed" in lines[0]
    assert ": 16 paths found in the cache, 0 computed" in lines[1]
    laws = [line for line in said if line.startswith("law")]
    assert len(laws) == 10
    assert all("holds" in line for line in laws)


def test_the_reference_never_changes(recipe_of: Make, tmp_path: Path) -> None:
    """Law 7: after training, the weights of the start in place give the cached values."""
    recipe = recipe_of("pair", objective="dpo", train__max_steps=6)
    recipe["model"]["lora"] = {"r": 4}
    session = session_of(recipe, tmp_path / "out")
    initial = InitialWeights(session.policy)
    session.train()
    run = session
    batch = pack_records(list(session.visited())[:4], 256)
    assert run.reference is not None
    for row in batch.rows:
        with run.policy.evaluating():
            trained = run.policy(row).numpy()
            with initial.in_place() as start:
                first = start(row).numpy()
        cached = reference_of(run, row, batch, torch.zeros(0)).numpy()
        assert abs(first - cached).max() < 1e-5
        assert abs(trained - cached).max() > 1e-3


def test_a_loss_that_is_not_finite_stops_the_run_and_names_records(
    recipe_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onestage.objectives.sft import SFT

    plain = SFT.__call__

    def poisoned(self: SFT, batch: Any) -> Any:
        loss = plain(self, batch)
        if float(batch.feedback.weight_N.max()) == 7.0:
            loss.loss_U[:] = loss.loss_U * float("nan")
        return loss

    monkeypatch.setattr(SFT, "__call__", poisoned)
    recipe = recipe_of("demonstration", objective="sft", train__save_steps=1)
    rows = [{"prompt": f"say {n}", "completion": f" {n}"} for n in range(20)]
    rows[13]["weight"] = 7.0
    write_rows(Path(recipe["data"][0]["path"]), rows)
    recipe["train"] |= {"max_steps": 10, "batch_size": 4}
    with pytest.raises(NonFiniteError, match=r"demonstrations:demonstration.jsonl:14\b") as caught:
        go(recipe, tmp_path / "out", self_check=False)
    assert str(caught.value).count("jsonl") == 1
    assert not (tmp_path / "out" / "model").exists()


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "index"])
def test_a_damaged_checkpoint_is_refused(damage: str, recipe_of: Make, tmp_path: Path) -> None:
    recipe = recipe_of("demonstration", objective="sft", train__save_steps=2)
    out = tmp_path / "out"
    go(recipe, out)
    file = out / "checkpoints" / "step-000004" / "training.pt"
    content = file.read_bytes()
    if damage == "truncate":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        file.write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])
    elif damage == "remove":
        file.unlink()
    else:
        (file.parent / "files.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"step-000004 is damaged: .*step-000002"):
        go(recipe, out, resume=True)
    assert (out / "model" / "model.safetensors").is_file()


def test_resuming_what_is_not_there_or_of_another_model(recipe_of: Make, tmp_path: Path) -> None:
    recipe = recipe_of("demonstration", objective="sft", train__save_steps=2)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        go(recipe, tmp_path / "none", resume=True)
    go(recipe, tmp_path / "out")
    recipe["train"]["seed"] = 7  # another fresh model
    with pytest.raises(CheckpointError, match=r"train.seed: 42 -> 7"):
        go(recipe, tmp_path / "out", resume=True)
    with pytest.raises(CheckpointError, match="started from model"):
        go(recipe, tmp_path / "out", resume=True, allow_changed=["train.seed"])


def test_resuming_with_other_data_is_refused(recipe_of: Make, tmp_path: Path) -> None:
    recipe = recipe_of("demonstration", objective="sft", train__save_steps=2)
    go(recipe, tmp_path / "out")
    with Path(recipe["data"][0]["path"]).open("a") as file:
        file.write('{"prompt": "new", "completion": " row"}\n')
    with pytest.raises(CheckpointError, match=r"other data: \['demonstrations'\]"):
        go(recipe, tmp_path / "out", resume=True)


def test_a_template_that_drops_responses_stops_the_run(recipe_of: Make, tmp_path: Path) -> None:
    recipe = recipe_of("demonstration", objective="sft")
    recipe["model"]["chat_template"] = (
        "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}"
    )
    with pytest.raises(
        RecipeError, match=r"2 rows cannot be used.*\n.*drops or rewrites the response"
    ):
        go(recipe, tmp_path / "out")
    assert not (tmp_path / "out" / "model").exists()


def test_a_used_or_unwritable_folder_is_refused(recipe_of: Make, tmp_path: Path) -> None:
    recipe = recipe_of("demonstration", objective="sft")
    go(recipe, tmp_path / "out")
    before = (tmp_path / "out" / "metrics.jsonl").read_text()
    with pytest.raises(OutputError, match="already holds a run"):
        go(recipe, tmp_path / "out")
    assert (tmp_path / "out" / "metrics.jsonl").read_text() == before
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        go(recipe, tmp_path / "file" / "out")


def test_a_full_disk_loses_nothing(
    recipe_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of("demonstration", objective="sft", train__save_steps=2)
    plain = torch.save

    def full(content: Any, file: Any) -> None:
        if "step-000004" in str(file):
            raise OSError(28, "No space left on device")
        plain(content, file)

    monkeypatch.setattr(torch, "save", full)
    out = tmp_path / "out"
    with pytest.raises(OSError, match="No space left"):
        go(recipe, out)
    assert sorted(p.name for p in (out / "checkpoints").iterdir()) == ["last", "step-000002"]
    monkeypatch.setattr(torch, "save", plain)
    go(recipe, out, resume=True)
    assert (out / "model").is_dir()


def test_a_disk_too_small_for_the_model_is_refused_before(
    recipe_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    monkeypatch.setattr(
        "onestage.runfolder.disk.shutil.disk_usage", lambda folder: SimpleNamespace(free=1000)
    )
    with pytest.raises(DiskFullError, match=r"0\.0 MB free, .* make room and run the same command"):
        go(recipe_of("demonstration"), tmp_path / "out")


def test_bf16_and_gradient_checkpointing_run_and_stay_close(
    recipe_of: Make, tmp_path: Path
) -> None:
    plain = go(recipe_of("demonstration", objective="sft"), tmp_path / "plain")
    recipe = recipe_of("demonstration", objective="sft", train__bf16=True)
    recipe["model"]["gradient_checkpointing"] = True
    other = go(recipe, tmp_path / "bf16")
    assert other[-1]["loss"] == pytest.approx(plain[-1]["loss"], rel=0.05)
    assert other[-1]["loss"] != plain[-1]["loss"]


def test_trackers_are_told(recipe_of: Make, tmp_path: Path) -> None:
    recipe = recipe_of("demonstration", objective="sft", train__report_to="tensorboard")
    go(recipe, tmp_path / "out")
    assert list((tmp_path / "out").rglob("events.out.tfevents.*"))
    recipe["train"]["report_to"] = "nonsense"
    with pytest.raises(RecipeError, match="report_to"):
        go(recipe, tmp_path / "other")


def test_two_processes_do_what_one_does(recipe_of: Make, tmp_path: Path) -> None:
    """Law 6, ranks: gloo on the CPU, the same losses and the same model."""
    recipe = recipe_of(objective={**MIXED, "score": {"name": "uft", "offset": "learned"}})
    recipe["train"] |= {"tokens_per_row": 128, "batch_size": 12}
    for stream in recipe["data"]:
        stream["eval_path"] = stream["path"]
    recipe["train"] |= {"eval_steps": 2, "save_steps": 2}
    one = go(recipe, tmp_path / "one")
    file = write_recipe(tmp_path / "recipe.yaml", {**recipe, "cache_dir": str(tmp_path / "cache2")})
    train_under_torchrun(file, tmp_path / "two")
    two = read_metrics(tmp_path / "two")
    for left, right in zip(one, two, strict=True):
        assert left.keys() == right.keys()
        for key in left:
            if key != "tokens_per_second":
                assert right[key] == pytest.approx(left[key], rel=2e-3, abs=2e-4), key
    mine, theirs = weights(tmp_path / "one" / "model"), weights(tmp_path / "two" / "model")
    for name in mine:
        torch.testing.assert_close(mine[name], theirs[name], rtol=0, atol=5e-3, msg=name)


def test_four_bits_are_refused_where_they_cannot_be_honoured(
    recipe_of: Make, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of("pair", objective="dpo")
    recipe["model"] = {"name": str(model_folder), "load_in_4bit": True, "lora": {"r": 2}}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs the package bitsandbytes"):
        build(parse_recipe(recipe), tmp_path / "one", say=quiet)


def test_a_base_of_four_bits_learns_the_same_with_evaluations_between(
    recipe_of: Make, model_folder: Path, tmp_path: Path
) -> None:
    """bitsandbytes packs weights where it is asked without gradients, and lost those of later steps."""
    pytest.importorskip("bitsandbytes")  # extra: quantized
    recipe = recipe_of("pair", objective="dpo", train__learning_rate=1e-3)
    recipe["model"] = {"name": str(model_folder), "load_in_4bit": True, "lora": {"r": 2}}
    straight = go(recipe, tmp_path / "straight")
    recipe["data"][0]["eval_path"] = recipe["data"][0]["path"]
    recipe["train"]["eval_steps"] = 1
    between = [line for line in go(recipe, tmp_path / "between") if "grad_norm" in line]
    for mine, theirs in zip(between, straight, strict=True):
        assert (mine["loss"], mine["grad_norm"]) == (theirs["loss"], theirs["grad_norm"])
    saved = weights(tmp_path / "between" / "model")
    moved = {name: bool(one.any()) for name, one in saved.items() if "lora_B" in name}
    assert len(moved) == 14
    assert all(moved.values()), moved


def test_other_held_out_rows_than_before_are_said(recipe_of: Make, tmp_path: Path) -> None:
    recipe = recipe_of("demonstration", objective="sft", train__max_steps=4, train__eval_steps=1)
    row = {"prompt": "what is", "completion": " the sea"}
    for number, how in enumerate(({"callbacks": [StopAt(2)]}, {"resume": True})):
        file = write_rows(tmp_path / "held.jsonl", [row] * (number + 1))
        recipe["data"][0]["eval_path"] = str(file)
        said: list[str] = []
        go(recipe, tmp_path / "out", say=said.append, **how)
    told = "changed since: held-out rows of demonstrations: what was measured before is of others"
    assert told in said


def test_a_loss_of_nothing_is_no_number(recipe_of: Make, tmp_path: Path) -> None:
    """Held-out rows of a term that weighs nothing are no loss of 0; those who look on are told None."""
    recipe = recipe_of("demonstration", "pair", train__max_steps=2, train__eval_steps=1)
    recipe["objective"] = {"demonstration": "sft", "pair": "dpo"}
    recipe["schedule"] = {"name": "mix", "weights": {"sft": 1.0, "dpo": 0.0}}
    recipe["data"][1]["eval_path"] = recipe["data"][1]["path"]
    seen: list[Any] = []

    class Look(Callback):
        def metrics(self, line: Any) -> None:
            seen.extend([line["eval/loss"]] if "eval/loss" in line else [])

    lines = go(recipe, tmp_path / "out", callbacks=[Look()])
    assert [line["eval/loss"] for line in lines if "eval/loss" in line] == [None, None]
    assert seen == [None, None]


def test_an_average_of_the_tail_has_at_least_the_last_step(recipe_of: Make, tmp_path: Path) -> None:
    recipe = recipe_of("demonstration", objective="sft", train__max_steps=3, train__average="tail")
    recipe["train"]["average_start"] = 0.9
    go(recipe, tmp_path / "out")
    assert same(tmp_path / "out" / "model", tmp_path / "out" / "model_last")
