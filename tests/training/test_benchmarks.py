"""Suites answered while a run goes: their share of its time, the best model, the end, going on."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from support import small_suites
from support.tiny import write_rows

import onestage as one
from onestage.config import RecipeError
from onestage.report.keeping import verdict_of_run
from onestage.report.plain import read_plain
from onestage.rollout import suites
from onestage.runfolder import read_metrics
from onestage.training.asker import Asker
from onestage.training.benchmarks import Benchmarks
from onestage.training.best import Best
from onestage.training.callbacks import Callback
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe

Make = Callable[..., dict[str, Any]]
SLOW, SCRIPTED = "support.small_suites:Slow", "support.small_suites:Scripted"


def train(recipe: dict[str, Any], out: Path, **how: Any) -> list[str]:
    said: list[str] = []
    carry_out(parse_recipe(recipe), out, say=said.append, self_check=False, **how)
    return [line for line in said if line.startswith("evaluate")]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(left: Path, right: Path) -> bool:
    theirs = weights(right)
    return all(torch.equal(tensor, theirs[name]) for name, tensor in weights(left).items())


def series(out: Path, key: str) -> list[tuple[int, float]]:
    return [(line["step"], line[key]) for line in read_metrics(out) if key in line]


class Clock:
    """Time that goes by in sleep alone. How busy a machine is makes no difference to it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Slowly(Callback):
    def step(self, run: Any, loss: float) -> None:
        time.sleep(0.015)


By = Callable[..., None]


@pytest.fixture
def by_clock(monkeypatch: pytest.MonkeyPatch) -> By:
    """Have runs go by a clock on which steps take so long, small suites' answers what they say, other
    answers nothing, and finding out what a step takes as long as it says."""

    def have(step: float, found_in: float = 0.0) -> None:
        clock = Clock()

        class Timed(Benchmarks):
            def __init__(self, *of: Any) -> None:
                super().__init__(*of, clock)

            def after_step(self) -> bool:
                clock.sleep(step)
                return super().after_step()

        def find_out(*_: Any) -> float:
            clock.sleep(found_in)
            return step

        monkeypatch.setattr(small_suites, "sleep", clock.sleep)
        monkeypatch.setattr("onestage.training.run.Benchmarks", Timed)
        monkeypatch.setattr("onestage.training.benchmarks.seconds_of_a_step", find_out)

    return have


@pytest.fixture
def problems(tmp_path: Path) -> dict[str, Any]:
    rows = [{"question": f"{n} and {n}?", "answer": f"#### {2 * n}"} for n in range(6)]
    path = write_rows(tmp_path / "problems.jsonl", rows)
    return {"name": "gsm8k", "path": str(path), "shots": 0, "max_completion_length": 6}


def test_a_real_suite_is_asked_and_training_is_as_without(
    recipe_of: Make, problems: dict[str, Any], tmp_path: Path, by_clock: By
) -> None:
    by_clock(1.0)
    plain = recipe_of("demonstration", objective="sft", train__max_steps=4)
    asked = {"suites": [problems], "prompts": ["Say red."], "share": 0.95, "steps": 2}
    train(plain, tmp_path / "plain")
    train(plain | {"evaluate": asked}, tmp_path / "asked")
    assert same(tmp_path / "plain" / "model", tmp_path / "asked" / "model")
    for key in ("loss", "grad_norm"):
        assert series(tmp_path / "plain", key) == series(tmp_path / "asked", key)
    found = series(tmp_path / "asked", "suite/gsm8k/mean")
    assert [step for step, _ in found] == [0, 2, 4]
    # The same as is measured of the saved model by itself.
    policy = one.load(tmp_path / "asked" / "model")
    alone = suites.measure(suites.make(problems), suites.Subject.of(policy))
    assert found[-1][1] == pytest.approx(alone.headline.value)
    lines = [json.loads(line) for line in (tmp_path / "asked" / "samples.jsonl").open()]
    said = [line["completions"][0] for line in lines if line["step"] == 4]
    assert set(said[:3]) <= {answer["completion"] for answer in alone.answers.values()}
    prompted = [line for line in lines if line["suite"] == "prompts"]
    assert [line["step"] for line in prompted] == [step for step, _ in found]
    assert prompted[0]["prompt"] == "Say red."


@pytest.mark.parametrize(
    ("steps", "at"), [(None, [0, 20, 40, 60, 80]), (5, [0, 20, 40, 60, 80]), (30, [0, 30, 60, 80])]
)
def test_the_share_of_the_time_holds(
    steps: int | None,
    at: list[int],
    recipe_of: Make,
    tmp_path: Path,
    by_clock: By,
) -> None:
    """80 steps of 15 ms leave room for 63 ms of evaluations: 15 items of 4 ms, in five times three."""
    by_clock(0.015)
    told = recipe_of("demonstration", objective="sft", train__max_steps=80)
    asked = {"suites": [{"name": SLOW, "size": 200}], **({"steps": steps} if steps else {})}
    said = train(told | {"evaluate": asked}, tmp_path / "run")
    shares = series(tmp_path / "run", "evaluate/share")
    items = series(tmp_path / "run", "suite/small_suites/items")
    assert items == [(step, 3) for step in at]
    took = 0.004 * 3 * len(at)
    assert shares[-1] == (80, pytest.approx(took / (took + 80 * 0.015)))
    assert shares[-1][1] <= 0.05
    assert "at most 5.0% of the run's time" in said[0]
    assert f"evaluations: {len(items)}" in said[-1]
    assert "allowed 5.0%" in said[-1]


def test_the_share_that_is_told_is_of_the_time_that_went_by(
    recipe_of: Make, tmp_path: Path
) -> None:
    """By the machine's own clock, where a step takes what it takes."""
    told = recipe_of("demonstration", objective="sft", train__max_steps=80)
    asked = {"suites": [{"name": SLOW, "size": 200}]}
    began = time.monotonic()
    said = train(told | {"evaluate": asked}, tmp_path / "run", callbacks=[Slowly()])
    took = time.monotonic() - began
    step, share = series(tmp_path / "run", "evaluate/share")[-1]
    items = series(tmp_path / "run", "suite/small_suites/items")
    assert step == 80
    assert items[0][0] == 0
    assert 0.004 * sum(count for _, count in items) <= share * took
    assert f"evaluations: {len(items)}" in said[-1]


def test_answers_that_would_not_fit_are_ended_and_counted(
    recipe_of: Make, tmp_path: Path, by_clock: By
) -> None:
    """A whole answer takes half a second, twice what 40 steps of 25 ms have for all evaluations."""
    by_clock(0.025)
    told = recipe_of("demonstration", objective="sft", train__max_steps=40)
    asked = {"suites": ["support.small_suites:Rambling"], "share": 0.2, "steps": 20}
    out = tmp_path / "run"
    said = train(told | {"evaluate": asked}, out)
    assert series(out, "evaluate/share")[-1][1] <= 0.2
    lengths = series(out, "suite/small_suites/length")
    assert [step for step, _ in lengths] == [0, 20, 40]
    assert len({length for _, length in lengths}) == 1
    # Three evaluations have 83 ms each. An answer of as many tokens as have half of that, and others.
    assert lengths[0][1] == 83
    items, stopped = (series(out, f"suite/small_suites/{name}") for name in ("items", "stopped"))
    assert items == stopped
    assert "answers to small_suites after 83 tokens are ended" in said[0]


def test_a_run_that_is_too_short_is_asked_nothing(
    recipe_of: Make, tmp_path: Path, by_clock: By
) -> None:
    """Four steps leave room for .21 of one; to find that out takes a quarter."""
    by_clock(1.0, found_in=0.25)
    told = recipe_of("demonstration", objective="sft")
    asked = {"suites": [SLOW], "best": "small_suites"}
    said = train(told | {"evaluate": asked}, tmp_path / "run")
    assert "nothing is asked in so short a run, and evaluate.best: small_suites decides" in said[0]
    assert "raise evaluate.share" in said[0]
    assert "evaluations: 0" in said[-1]
    assert not series(tmp_path / "run", "suite/small_suites/items")
    assert [step for step, _ in series(tmp_path / "run", "evaluate/share")] == [4]
    assert (tmp_path / "run" / "model").is_dir()


def test_suites_for_which_there_is_no_time_are_named(
    recipe_of: Make, tmp_path: Path, by_clock: By
) -> None:
    """One takes two seconds an item; then there is no time for the other, now and in the end."""
    by_clock(0.1)
    told = recipe_of("demonstration", objective="sft", train__max_steps=20)
    slow = {"name": SLOW, "seconds": 2, "size": 9}
    asked = {"suites": [slow, {"name": SLOW, "seconds": 0}], "share": 0.3}
    said = train(told | {"evaluate": asked}, tmp_path / "run")
    assert "there is no time for small_suites_2: raise evaluate.share" in said[0]
    assert series(tmp_path / "run", "suite/small_suites/items")[0] == (0, 1)
    assert "so few of small_suites say nothing of the model: raise evaluate.share" in said[0]
    assert not series(tmp_path / "run", "suite/small_suites_2/items")


def test_the_best_model_is_kept_and_the_run_ends(
    recipe_of: Make, tmp_path: Path, by_clock: By
) -> None:
    """Start 1; then 3, 5, 4, 2 at steps 2, 4, 6, 8: step 4 is best, and two evaluations were not."""
    by_clock(1.0)
    small_suites.SCRIPT[:] = [1, 3, 5, 4, 2, 9, 9, 9]
    told = recipe_of("demonstration", objective="sft", train__max_steps=20)
    asked = {"suites": [SCRIPTED], "best": "small_suites", "patience": 2, "steps": 2}
    out = tmp_path / "run"
    said = train(told | {"evaluate": asked | {"share": 0.9}}, out)
    assert [step for step, _ in series(out, "suite/small_suites/worth")] == [0, 2, 4, 6, 8]
    assert "was best at step 4 (5) and has not been better in 2 evaluations" in " ".join(said)
    assert series(out, "loss")[-1][0] == 8
    assert same(out / "model", out / "checkpoints" / "best" / "model")
    assert (out / "checkpoints" / "best").resolve().name == "step-000004"
    assert not same(out / "model", out / "model_last")
    # The report's numbers are those of the model that was kept: worth 5, not 2.
    found = read_plain([out])
    assert found.values(found.settings()[1], "small_suites worth") == {42: 5.0}


def test_models_are_compared_on_the_items_that_both_were_asked(
    recipe_of: Make, tmp_path: Path, by_clock: By, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One item is worth 1 above the other. Step 2 has 1.2 and .2; step 4 is asked one, 1.1: less than
    1.2, and more than their mean. The run is stopped there, and goes on."""
    by_clock(1.0)
    ask = Asker.ask

    def fewer(asker: Asker, one: Any, count: int, *rest: Any) -> Any:
        return ask(asker, one, 1 if asker.run.step == 4 else count, *rest)

    class Stop(Callback):
        def step(self, run: Any, loss: float) -> None:
            run.stop = run.step == 4

    monkeypatch.setattr(Asker, "ask", fewer)
    small_suites.SCRIPT[:] = [0, 0.2, 0.1, 0.3]
    told = recipe_of("demonstration", objective="sft", train__max_steps=8)
    asked = {"suites": [{"name": SCRIPTED, "above": 1}], "best": "small_suites", "steps": 2}
    told["evaluate"] = asked | {"share": 0.9}
    out = tmp_path / "run"
    train(told, out, callbacks=[Stop()])
    train(told, out, resume=True)
    worth = [value for _, value in series(out, "suite/small_suites/worth")]
    assert worth == pytest.approx([0.5, 0.7, 1.1, 0.6, 0.8])
    assert series(out, "evaluate/kept_step") == [(2, 2), (4, 2), (6, 2), (8, 8)]


def test_what_was_best_by_another_number_is_not_the_best() -> None:
    """A loss of 2.0 is no accuracy that .4 would have to beat."""
    by_loss = Best("loss")
    assert by_loss.judge(3, 2.0, {})
    by_suite, again = Best("slow", suites.make(SLOW), "mean"), Best("loss")
    by_suite.restore(by_loss.state())
    again.restore(by_loss.state())
    assert (by_suite.step, again.step) == (None, 3)
    assert by_suite.judge(4, 0.4, {"1": {"mean": 0.4}})
    assert not again.judge(4, 2.1, {})


def test_it_goes_on_where_it_stopped(recipe_of: Make, tmp_path: Path, by_clock: By) -> None:
    by_clock(1.0)

    class Stop(Callback):
        def step(self, run: Any, loss: float) -> None:
            run.stop = run.step == 5

    told = recipe_of("demonstration", objective="sft", train__max_steps=10)
    told["evaluate"] = {"suites": [{"name": SLOW, "seconds": 0, "size": 5}], "steps": 2}
    told["evaluate"] |= {"share": 0.95, "best": "small_suites"}
    train(told, tmp_path / "whole")
    train(told, tmp_path / "cut", callbacks=[Stop()])
    train(told, tmp_path / "cut", resume=True)
    assert same(tmp_path / "whole" / "model", tmp_path / "cut" / "model")
    key = "suite/small_suites/mean"
    assert series(tmp_path / "whole", key) == series(tmp_path / "cut", key)
    assert [step for step, _ in series(tmp_path / "cut", key)] == [0, 2, 4, 6, 8, 10]
    lines = [json.loads(line) for line in (tmp_path / "cut" / "evaluations.jsonl").open()]
    assert [line["step"] for line in lines] == [0, 2, 4, 6, 8, 10]
    # By hand: the change of the mean, and of five equal changes an interval of no width.
    start, end = (line["metrics"]["mean"] for line in (lines[0], lines[-1]))
    assert end["change"] == pytest.approx(end["value"] - start["value"])
    assert end["half"] == pytest.approx(0, abs=1e-6)
    verdict = verdict_of_run(tmp_path / "cut")
    assert verdict is not None
    assert "95 % interval" in " ".join(verdict.lines)


def test_the_change_of_a_number_that_is_no_mean_is_against_the_start_model(
    recipe_of: Make, tmp_path: Path, by_clock: By
) -> None:
    """By the numbers that stand beside it: of chrF, which is of all answers together."""
    by_clock(1.0)
    pytest.importorskip("lm_eval.tasks", reason="extra: eval")
    rows = write_rows(
        tmp_path / "rows.jsonl", [{"q": f"Say {n}.", "a": f"{n} and red"} for n in "ab"]
    )
    task = {
        **{"task": "said", "dataset_path": "json", "test_split": "test"},
        "dataset_kwargs": {"data_files": {"test": str(rows)}, "cache_dir": str(tmp_path / "cache")},
        **{"output_type": "generate_until", "doc_to_text": "{{q}}", "doc_to_target": "{{a}}"},
        "generation_kwargs": {"until": ["."], "max_gen_toks": 6},
        "metric_list": [{"metric": "chrf"}],
    }
    (tmp_path / "said.yaml").write_text(yaml.safe_dump(task))
    told = recipe_of("demonstration", objective="sft", train__max_steps=4)
    told["train"]["learning_rate"] = 0.1
    told["evaluate"] = {"suites": [{"name": "lm_eval", "tasks": str(tmp_path / "said.yaml")}]}
    train(told | {"evaluate": told["evaluate"] | {"share": 0.9}}, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "evaluations.jsonl").open()]
    start, end = (line["metrics"]["said/chrf,none"] for line in (lines[0], lines[-1]))
    assert start["value"] != end["value"]
    assert end["change"] == pytest.approx(end["value"] - start["value"])


def test_a_run_that_goes_on_may_be_asked_for_the_first_time(
    recipe_of: Make, tmp_path: Path, by_clock: By
) -> None:
    by_clock(1.0)
    told = recipe_of("demonstration", objective="sft", train__max_steps=2, train__save_steps=2)
    told["train"] |= {"lr_scheduler_type": "constant"}
    train(told, tmp_path / "run")
    told["train"]["max_steps"] = 4
    told["evaluate"] = {"suites": [{"name": SLOW, "seconds": 0, "size": 5}], "steps": 2}
    told["evaluate"] |= {"share": 0.95}
    train(told, tmp_path / "run", resume=True, allow_changed=["train.max_steps"])
    assert series(tmp_path / "run", "suite/small_suites/items") == [(2, 5.0), (4, 5.0)]


def test_a_metric_that_no_suite_takes_is_refused_before_the_first_step(
    recipe_of: Make, tmp_path: Path
) -> None:
    told = recipe_of("demonstration", objective="sft")
    told["evaluate"] = {"suites": [SLOW], "best": "small_suites/means", "share": 0.9}
    with pytest.raises(RecipeError, match="no metric 'means'; did you mean 'mean'"):
        train(told, tmp_path / "run")
    assert not list((tmp_path / "run").glob("checkpoints/*"))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"suites": ["ifevil"]}, "did you mean 'ifeval'|needs the package lm-eval"),
        ({"suites": [{"name": "gsm8k", "shots": -1}]}, "shots must be at least 0"),
        ({"suites": [{"name": "gsm8k", "path": "nowhere.jsonl"}]}, "nowhere.jsonl"),
        ({"suites": [SLOW], "best": "small_suite"}, "did you mean 'small_suites'"),
        ({"suites": [SLOW], "best": "loss"}, "needs held-out rows and train.eval_steps"),
        ({"suites": [SLOW], "patience": 2}, "say by what with `best`"),
        ({"suites": [SLOW], "share": 1}, "evaluate.share"),
        ({"prompts": "nowhere.txt"}, "nowhere.txt"),
        ({}, "name suites"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_loaded(
    asked: dict[str, Any], message: str, recipe_of: Make, tmp_path: Path
) -> None:
    told = recipe_of("demonstration", objective="sft") | {"evaluate": asked}
    with pytest.raises((RecipeError, ValueError, OSError), match=message):
        train(told, tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_where_an_average_is_saved_it_is_what_is_asked(
    recipe_of: Make, tmp_path: Path, by_clock: By
) -> None:
    """Each answer is worth the sum of the first weights at the moment, and .01 on the mean of three."""
    by_clock(1.0)
    told = recipe_of("demonstration", objective="sft", train__max_steps=6, train__average="tail")
    told["train"]["learning_rate"] = 0.05
    told["evaluate"] = {"suites": [{"name": SLOW, "seconds": 0, "size": 3}], "steps": 3}
    told["evaluate"] |= {"share": 0.95}
    out = tmp_path / "run"
    train(told, out)
    name = "model.embed_tokens.weight"
    saved, last = (float(weights(out / where)[name].sum()) for where in ("model", "model_last"))
    assert abs(saved - last) > 0.01
    assert series(out, "suite/small_suites/mean")[-1] == (6, pytest.approx(saved + 0.01, abs=1e-4))


def test_other_items_than_before_are_not_compared(
    recipe_of: Make, tmp_path: Path, by_clock: By
) -> None:
    by_clock(1.0)

    class Stop(Callback):
        def step(self, run: Any, loss: float) -> None:
            run.stop = run.step == 3

    told = recipe_of("demonstration", objective="sft", train__max_steps=6)
    for size, how in ((5, {"callbacks": [Stop()]}), (6, {"resume": True})):
        asked = {"suites": [{"name": SLOW, "seconds": 0, "size": size}], "steps": 2, "share": 0.95}
        said = train(told | {"evaluate": asked | {"best": "small_suites"}}, tmp_path / "run", **how)
    assert any("small_suites asks other items than before" in line for line in said)
    lines = [json.loads(line) for line in (tmp_path / "run" / "evaluations.jsonl").open()]
    assert ["change" in line["metrics"]["mean"] for line in lines] == [False, True, False, False]


def test_a_best_checkpoint_that_is_gone_is_said(
    recipe_of: Make, tmp_path: Path, by_clock: By
) -> None:
    by_clock(1.0)
    small_suites.SCRIPT[:] = [1, 5, 4, 2]

    class Lose(Callback):
        def step(self, run: Any, loss: float) -> None:
            if run.step == 6:
                shutil.rmtree(out / "checkpoints" / "step-000002")

    told = recipe_of("demonstration", objective="sft", train__max_steps=6)
    told["evaluate"] = {"suites": [SCRIPTED], "best": "small_suites", "steps": 2, "share": 0.9}
    out = tmp_path / "run"
    said: list[str] = []
    carry_out(parse_recipe(told), out, say=said.append, self_check=False, callbacks=[Lose()])
    assert "the checkpoint of step 2, the best, is gone; model/ is the last one's" in said
    assert (out / "model" / "model.safetensors").is_file()
