"""Schedules in whole runs of a tiny Llama: who is trained on, with which gradient, also resumed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.drafts import data_of
from support.ranks import train_on_two_ranks
from support.tiny import write_recipe, write_rows

from onestage.config import RecipeError
from onestage.data.packing import pack_records
from onestage.runfolder import read_metrics
from onestage.schedules import active
from onestage.schedules import find as schedule_of_file
from onestage.testing import check_schedule
from onestage.training.build import build
from onestage.training.callbacks import Callback
from onestage.training.evaluate import measure
from onestage.training.forward import row_loss
from onestage.training.loop import decide, take_step
from onestage.training.pipeline import carry_out
from onestage.training.plan import make_plan
from onestage.training.recipe import load_recipe, parse_recipe
from onestage.training.run import Run

Make = Callable[..., dict[str, Any]]
TWO = {"demonstration": "sft", "pair": "dpo"}
LAMBDA = {"dpo": 0.25, "sft": 0.75}


def quiet(line: str) -> None:
    return None


@pytest.fixture
def two(recipe_of: Make) -> Callable[..., dict[str, Any]]:
    """A recipe with SFT on demonstrations and DPO on pairs, under some schedule."""

    def make(schedule: Any, **train: Any) -> dict[str, Any]:
        recipe = recipe_of("demonstration", "pair", objective=TWO, schedule=schedule)
        recipe["train"] |= {"batch_size": 3, "max_steps": 8, **train}
        return recipe

    return make


def go(recipe: dict[str, Any], out: Path, **options: Any) -> list[dict[str, Any]]:
    carry_out(parse_recipe(recipe), out, say=quiet, **options)
    return read_metrics(out)


def session_of(recipe: dict[str, Any], out: Path) -> Run:
    session = build(parse_recipe(recipe), out, say=quiet)
    session.fill_reference()
    return session


def final(out: Path, folder: str = "model") -> dict[str, torch.Tensor]:
    return load_file(out / folder / "model.safetensors")


SCHEDULES: dict[str, Any] = {
    "proportional": "proportional",
    "mix": {"name": "mix", "weights": LAMBDA},
    "sequential": {"name": "sequential", "weights": LAMBDA},
    "alright": {"name": "alright", "lambda": {"dpo": 0.5}},
    "maxright": {"name": "maxright", "weights": LAMBDA, "refresh_steps": 2},
    "maxright-published": {"name": "maxright", "decide": "same_batch", "refresh_steps": 2},
    "maxright-independent": {"name": "maxright", "decide": "independent", "refresh_steps": 3},
    "smooth_maxright": {"name": "smooth_maxright", "temperature": 0.3},
    "chord": {"name": "chord", "supervised": "sft", "decay_steps": 6},
}


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.at = step

    def step(self, run: Any, loss: float) -> None:
        if run.step == self.at:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("name", SCHEDULES)
def test_resuming_in_the_middle_of_any_schedule_is_exact(
    name: str, two: Make, tmp_path: Path
) -> None:
    """Law 9; clipping in common, a running average of the weights and a line of metrics that has begun
    go on as well."""
    how = {"clip": "common", "average": "ema", "max_grad_norm": 0.5, "logging_steps": 2}
    recipe = two(SCHEDULES[name], **how)
    whole = go(recipe, tmp_path / "whole")
    go(recipe, tmp_path / "cut", callbacks=[StopAt(5)])
    resumed = go(recipe, tmp_path / "cut", resume=True)
    for left, right in zip(whole, resumed, strict=True):
        left.pop("tokens_per_second"), right.pop("tokens_per_second")
        assert left == right
    for folder in ("model", "model_last"):
        mine, theirs = final(tmp_path / "whole", folder), final(tmp_path / "cut", folder)
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_term_without_weight_draws_nothing(name: str, two: Make, tmp_path: Path) -> None:
    lines = go(two(SCHEDULES[name]), tmp_path / "out")
    stream = {"sft": "demonstrations", "dpo": "pairs"}
    for line in lines:
        for term, records in stream.items():
            weight = line.get(f"weight/{term}", 1.0)
            assert (f"{records}/tokens" in line) == (weight > 0)
    if name not in ("proportional", "mix", "smooth_maxright", "chord"):
        assert all(sorted(line[f"weight/{t}"] for t in stream) == [0, 1] for line in lines)


STRANGER = """
from dataclasses import dataclass, field

from onestage.schedules import Schedule


@dataclass
class Worst(Schedule):
    measure = "own_batch"
    measure_every = 3
    patience: int = 3
    losses: dict = field(default_factory=dict, init=False)

    def wants(self, step):
        return list(self.weights) if step % (self.patience + 1) == 0 else []

    def observe(self, step, losses):
        self.losses |= {term: loss for term, loss in losses.items() if loss == loss}

    def weigh(self, step):
        worst = max(self.losses, key=self.losses.get)
        return {term: float(term == worst) for term in self.weights}

    def state(self):
        return {"losses": dict(self.losses)}

    def restore(self, state):
        self.losses = dict(state["losses"])
"""


def test_a_schedule_from_a_file_of_somebody_else(two: Make, tmp_path: Path) -> None:
    """It measures on batches of its own, whose reference is computed before the run."""
    (tmp_path / "worst.py").write_text(STRANGER)
    name = f"{tmp_path / 'worst.py'}:Worst"
    recipe = two({"name": name, "weights": LAMBDA, "patience": 2})
    check_schedule(schedule_of_file(name)(weights=LAMBDA))
    lines = go(recipe, tmp_path / "out")
    assert [line["weight/sft"] for line in lines] == [1.0] * 8  # ln 2 of DPO is never the worst
    with pytest.raises(ValueError, match=r"unknown option 'losses' \(known: patience, weights\)"):
        go(two({"name": name, "losses": {}}), tmp_path / "other")


def test_sequential_switches_once_with_the_same_optimiser(two: Make, tmp_path: Path) -> None:
    lines = go(two(SCHEDULES["sequential"]), tmp_path / "out")
    assert [line["weight/dpo"] for line in lines] == [1, 1, 0, 0, 0, 0, 0, 0]
    back = two({"name": "sequential", "weights": LAMBDA, "order": ["sft", "dpo"]})
    lines = go(back, tmp_path / "back")
    assert [line["weight/dpo"] for line in lines] == [0] * 6 + [1] * 2


def gradients(session: Run, records: Any, weights: dict[str, float]) -> list[torch.Tensor]:
    run = session
    run.policy.zero_grad()
    batch, counts = pack_records(records, run.options.row_budget), run.terms.count(records)
    for row in batch.rows:
        row_loss(run, row, batch, weights, counts)[0].backward()
    return [p.grad.clone() for p in run.policy.parameters()]


def test_mix_is_the_weighted_sum_of_its_terms_gradients(two: Make, tmp_path: Path) -> None:
    session = session_of(two(SCHEDULES["mix"]), tmp_path / "out")
    run = session
    take_step(run, list(run.policy.parameters()), run.feeds.draw(LAMBDA), LAMBDA)
    assert run.feeds.drawn == {"dpo": 1, "sft": 1}
    records = run.feeds.draw(LAMBDA)
    kinds = {"dpo": "pair", "sft": "demonstration"}
    assert [r.kind for r in records].count("pair") == 3 == len(records) - 3
    together = gradients(session, records, LAMBDA)
    alone = {
        term: gradients(session, [r for r in records if r.kind == kind], {term: 1.0})
        for term, kind in kinds.items()
    }
    for whole, dpo, sft in zip(together, alone["dpo"], alone["sft"], strict=True):
        torch.testing.assert_close(whole, 0.25 * dpo + 0.75 * sft, rtol=1e-4, atol=1e-6)


def test_alright_does_not_multiply_the_gradient_by_lambda(two: Make, tmp_path: Path) -> None:
    """A step's loss is the plain mean of the drawn term: DPO's is ln 2 as long as nothing moves."""
    recipe = two({"name": "alright", "lambda": {"dpo": 0.5}}, learning_rate=1e-12)
    lines = go(recipe, tmp_path / "out")
    losses = [line["loss"] for line in lines if line["weight/dpo"]]
    assert 0 < len(losses) < len(lines)
    assert losses == pytest.approx([0.693147] * len(losses), abs=1e-4)


def test_maxright_trains_on_the_worse_term_and_knows_the_loss_for_free(
    two: Make, tmp_path: Path
) -> None:
    recipe = two({"name": "maxright", "decide": "independent", "refresh_steps": 4})
    session = session_of(recipe, tmp_path / "out")
    run = session
    stale = run.schedule.wants(0)
    assert set(stale) == {"dpo", "sft"}
    losses = measure(run, stale)
    assert losses["dpo"] == pytest.approx(0.693147, abs=1e-4)
    assert losses["sft"] > 3  # a fresh model: the worse one, and the one to train on
    run.schedule.observe(0, losses)
    assert active(run.schedule.weigh(0)) == ["sft"]
    records = run.feeds.draw(["sft"])
    measured = take_step(run, list(run.policy.parameters()), records, run.schedule.weigh(0))
    assert set(measured.losses) == {"sft"}
    run.schedule.observe(0, measured.losses)
    assert run.schedule.values["sft"] == measured.losses["sft"]


def test_published_maxright_decides_on_the_batch_that_it_trains_on(
    two: Make, tmp_path: Path
) -> None:
    session = session_of(two(SCHEDULES["maxright-published"]), tmp_path / "out")
    run = session
    seen = measure(run, ["dpo", "sft"])
    records = run.feeds.draw(["sft"])
    weights = {"dpo": 0.0, "sft": 1.0}
    measured = take_step(run, list(run.policy.parameters()), records, weights)
    assert measured.losses["sft"] == pytest.approx(seen["sft"], rel=1e-5)
    apart = session_of(two(SCHEDULES["maxright-independent"]), tmp_path / "apart")
    assert measure(apart, ["sft"])["sft"] != pytest.approx(seen["sft"], rel=1e-3)


def test_published_maxright_never_sees_again_what_it_looked_at_and_did_not_want(
    two: Make, tmp_path: Path
) -> None:
    recipe = two({"name": "maxright", "decide": "same_batch", "refresh_steps": 1})
    run = session_of(recipe, tmp_path / "out")
    weights = decide(run)
    run.feeds.draw(active(weights))
    assert active(weights) == ["sft"]
    assert run.feeds.drawn == {"dpo": 1, "sft": 1}
    other = session_of(two(SCHEDULES["maxright-independent"]), tmp_path / "other")
    other.feeds.draw(active(decide(other)))
    assert other.feeds.drawn == {"sft": 1}


def test_auto_clips_in_common_under_alright_alone(two: Make, tmp_path: Path) -> None:
    for name in ("alright", "mix", "maxright"):
        run = session_of(two(SCHEDULES[name]), tmp_path / name)
        assert run.clipping.how == ("common" if name == "alright" else "step")


def test_streams_and_kinds_can_be_weighed(recipe_of: Make, tmp_path: Path) -> None:
    """The weights' keys make the terms: streams, kinds or objectives, also of one file."""
    weights = {"demonstrations": 0.2, "texts": 0.3, "dpo": 0.5}
    objective = {"demonstration": "sft", "text": "sft", "pair": "dpo"}
    recipe = recipe_of("demonstration", "text", "pair", objective=objective)
    recipe["schedule"] = {"name": "mix", "weights": weights}
    lines = go(recipe, tmp_path / "out")
    assert {k: v for k, v in lines[0].items() if k.startswith("weight/")} == pytest.approx(
        {f"weight/{term}": weight for term, weight in weights.items()}
    )


def test_a_file_of_several_kinds_is_dealt_out_to_its_terms(
    recipe_of: Make, rows: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    recipe = recipe_of("demonstration", objective=TWO)
    file = Path(recipe["data"][0]["path"])
    both = [row for pair in zip(rows["pair"], rows["demonstration"], strict=False) for row in pair]
    write_rows(file, both)
    recipe["schedule"] = {"name": "alright", "weights": {"dpo": 1, "sft": 1}}
    plan = make_plan(parse_recipe(recipe), data_of(parse_recipe(recipe)))
    assert {r.kind for _ in range(5) for r in plan.feeds.draw(["dpo"])} == {"pair"}
    assert {r.kind for _ in range(5) for r in plan.feeds.draw(["sft"])} == {"demonstration"}
    assert len(plan.feeds.draw(["sft"])) == 6


def test_per_step_gives_a_term_a_batch_of_its_own_size(two: Make, tmp_path: Path) -> None:
    """The published batches differ: 24 demonstrations, 8 pairs (xright.md 3.1)."""
    recipe = two(SCHEDULES["mix"])
    recipe["data"][0]["per_step"], recipe["data"][1]["per_step"] = 6, 2
    parsed = parse_recipe(recipe)
    plan = make_plan(parsed, data_of(parsed))
    drawn = [record.kind for record in plan.feeds.draw(["dpo", "sft"])]
    assert (drawn.count("demonstration"), drawn.count("pair")) == (6, 2)


AVERAGES = [("ema", 0, 0.5), ("tail", 4, 0.999)]


@pytest.mark.parametrize(("kind", "start", "decay"), AVERAGES)
def test_the_saved_model_is_the_average_of_the_iterates(
    kind: str, start: int, decay: float, two: Make, tmp_path: Path
) -> None:
    recipe = two("proportional", average=kind, average_decay=decay, average_start=0.5)
    iterates: list[torch.Tensor] = []

    class Keep(Callback):
        def step(self, run: Any, loss: float) -> None:
            iterates.append(run.policy.base.model.norm.weight.detach().clone())

    go(recipe, tmp_path / "out", callbacks=[Keep()])
    last = final(tmp_path / "out", "model_last")["model.norm.weight"]
    assert torch.equal(last, iterates[-1])
    tail = iterates[start:]
    wanted = tail[0]
    for number, value in enumerate(tail[1:], 2):
        rate = 1 / number if kind == "tail" else max(1 / number, 1 - decay)
        wanted = wanted + rate * (value - wanted)
    found = final(tmp_path / "out")["model.norm.weight"]
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-7)
    assert not torch.equal(found, last)
    if kind == "tail":
        torch.testing.assert_close(found, torch.stack(tail).mean(0), rtol=1e-5, atol=1e-7)


def test_terms_without_held_out_rows_are_told_of(two: Make, tmp_path: Path) -> None:
    """The mean of all is then one of the others; said once, and not where all have some."""
    recipe = two("proportional")
    recipe["train"]["eval_steps"] = 2
    for stream, told in zip(recipe["data"], (1, 0), strict=True):
        stream["eval_path"] = stream["path"]
        said: list[str] = []
        carry_out(parse_recipe(recipe), tmp_path / str(told), say=said.append)
        assert sum(line.startswith("eval/loss: dpo without held-out rows") for line in said) == told
        assert sum(line.startswith("eval/loss:") for line in said) == told


def test_averaging_never_changes_training(two: Make, tmp_path: Path) -> None:
    recipe = two("proportional")
    for stream in recipe["data"]:
        stream["eval_path"] = stream["path"]
    recipe["train"]["eval_steps"] = 2
    plain = go(recipe, tmp_path / "plain")
    recipe["train"]["average"] = "ema"
    averaged = go(recipe, tmp_path / "averaged")
    assert any("average_eval/loss" in line for line in averaged)
    for left, right in zip(plain, averaged, strict=True):
        same = {k: v for k, v in left.items() if k != "tokens_per_second"}
        assert same == {k: right[k] for k in same}
    mine, theirs = final(tmp_path / "plain"), final(tmp_path / "averaged", "model_last")
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_clip_changes_what_alright_steps_on(two: Make, tmp_path: Path) -> None:
    models = []
    for clip in ("step", "common"):
        recipe = two(SCHEDULES["alright"], clip=clip, max_grad_norm=0.5)
        recipe["train"]["optim"] = "sgd"
        lines = go(recipe, tmp_path / clip)
        models.append(final(tmp_path / clip))
    assert any(not torch.equal(models[0][key], models[1][key]) for key in models[0])
    assert {"grad_norm/sft", "grad_norm/dpo"} <= set().union(*lines)
    assert {"grad_clip_rate/sft", "grad_clip_rate/dpo"} <= set().union(*lines)


REFUSED: dict[str, tuple[Any, str]] = {
    "unknown name": ("alrigt", "did you mean 'alright'"),
    "no name": ({"weights": {"dpo": 1}}, "expected a name"),
    "negative": ({"name": "mix", "weights": {"dpo": -1, "sft": 1}}, "at least 0"),
    "all zero": ({"name": "mix", "weights": {"dpo": 0, "sft": 0}}, "not all 0"),
    "no number": ({"name": "mix", "weights": {"dpo": "x", "sft": 0}}, "expected {term: number}"),
    "lambda": ({"name": "mix", "lambda": {"dpo": 1.5}}, r"must lie in \[0, 1\], got 1.5 for dpo"),
    "lambda of nothing": ({"name": "mix", "lambda": {"kto": 0.5}}, "one of two terms"),
    "bare lambda": ({"name": "mix", "lambda": 0.5}, "expected {term: number in"),
    "both": ({"name": "mix", "lambda": {"dpo": 0.5}, "weights": LAMBDA}, "not both"),
    "missing": ({"name": "mix", "weights": {"dpo": 1}}, "none is given for demonstration records"),
    "unknown term": ({"name": "mix", "weights": {**LAMBDA, "pears": 1}}, "did you mean 'pairs'"),
    "unused": ({"name": "mix", "weights": {**LAMBDA, "label": 1}}, "'label' has no records"),
    "mixed": ({"name": "proportional", "weights": LAMBDA}, "takes its weights from the data"),
    "k": ({"name": "maxright", "refresh_steps": 0}, "refresh_steps must be at least 1"),
    "option": ({"name": "mix", "refresh": 1}, "unknown option 'refresh'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_schedule_is_refused_before_anything_is_written(
    case: str, two: Make, tmp_path: Path
) -> None:
    schedule, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        carry_out(parse_recipe(two(schedule)), tmp_path / "out", say=quiet)
    assert not (tmp_path / "out" / "recipe.yaml").exists()


def test_epochs_of_terms_that_draw_on_their_own_are_refused(two: Make, tmp_path: Path) -> None:
    recipe = two(SCHEDULES["mix"], num_train_epochs=1.0)
    del recipe["train"]["max_steps"]
    with pytest.raises(RecipeError, match=r"give train\.max_steps"):
        carry_out(parse_recipe(recipe), tmp_path / "out", say=quiet)


def test_a_schedule_can_be_set_on_the_command_line(two: Make, tmp_path: Path) -> None:
    file = write_recipe(tmp_path / "recipe.yaml", two("alright"))
    found = load_recipe(file, ["schedule.weights.dpo=3", "schedule.weights.sft=1"])
    assert found.schedule == {"name": "alright", "weights": {"dpo": 3, "sft": 1}}


@pytest.mark.parametrize("name", ["alright", "maxright"])
def test_two_processes_choose_as_one_does(name: str, two: Make, tmp_path: Path) -> None:
    recipe = two(SCHEDULES[name], clip="common", max_grad_norm=0.5, batch_size=6)
    if name == "maxright":  # weights with which both terms have their turn
        recipe["schedule"] = {"name": name, "weights": {"dpo": 0.9, "sft": 0.1}}
    recipe["train"]["tokens_per_row"] = 128
    one = go(recipe, tmp_path / "one")
    file = write_recipe(tmp_path / "r.yaml", {**recipe, "cache_dir": str(tmp_path / "cache2")})
    train_on_two_ranks(file, tmp_path / "two")
    two_ranks = read_metrics(tmp_path / "two")
    assert {line["weight/dpo"] for line in one} == {0.0, 1.0}
    for left, right in zip(one, two_ranks, strict=True):
        assert left["weight/dpo"] == right["weight/dpo"]
        assert right["loss"] == pytest.approx(left["loss"], rel=2e-3)
        assert right["tokens"] == left["tokens"]
