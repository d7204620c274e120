"""Whose head a run computes with: chosen, told, kept, and left where it is not exact."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from onestage.config import RecipeError
from onestage.models import head_choice, head_ways
from onestage.models.head import Shape, full_logits
from onestage.models.head_choice import Tried
from onestage.models.head_ways import WAYS, Way
from onestage.runfolder import read_metrics
from onestage.training import heads
from onestage.training.build import Draft
from onestage.training.callbacks import Callback
from onestage.training.idle import idle
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe
from onestage.training.resuming import is_free
from onestage.training.run import Run

Make = Callable[..., dict[str, Any]]


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.at = step

    def step(self, run: Run, loss: float) -> None:
        run.stop = run.step == self.at


class Another:
    """A head in the place of TRL's, that counts how often it was asked."""

    def __init__(self) -> None:
        self.calls, self.wrong = 0, 0.0

    def __call__(
        self, hidden: Any, weight: Any, bias: Any, target: Any, shape: Shape
    ) -> torch.Tensor:
        self.calls += 1
        logits = full_logits(hidden, weight, bias, shape)
        return logits.log_softmax(-1).gather(1, target[:, None])[:, 0] + self.wrong


@pytest.fixture
def another(monkeypatch: pytest.MonkeyPatch) -> Iterator[Another]:
    found = Another()
    monkeypatch.setitem(WAYS, "trl", Way("pytest", lambda: found, True, True))
    head_ways._loaded.cache_clear()
    yield found
    head_ways._loaded.cache_clear()


@pytest.fixture
def racing(monkeypatch: pytest.MonkeyPatch) -> None:
    """On this processor as on a GPU, with measured times that are given."""
    times = {"onestage": Tried(0.1, 8), "liger": Tried(trouble="not here"), "trl": Tried(0.01, 8)}
    monkeypatch.setattr(heads, "try_ways", lambda *given: times)
    asked = heads._asked
    monkeypatch.setattr(
        heads, "_asked", lambda run: asked(run) if run.resuming or run.head != "auto" else None
    )


def go(recipe: dict[str, Any], out: Path, **options: Any) -> list[str]:
    said: list[str] = []
    carry_out(parse_recipe(recipe), out, say=said.append, **options)
    return said


def noted(out: Path) -> Any:
    return json.loads((out / "manifest.json").read_text()).get("head")


def test_on_a_cpu_nothing_is_tried_and_nothing_said(
    recipe_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_choice, "try_ways", None)
    said = go(recipe_of("demonstration", train__max_steps=1), tmp_path / "out")
    assert not [line for line in said if line.startswith("head:")]
    assert noted(tmp_path / "out") is None


@pytest.mark.usefixtures("racing")
def test_the_fastest_is_taken_told_and_kept(
    another: Another, recipe_of: Make, tmp_path: Path
) -> None:
    """A run that was stopped goes on with it, and ends in the same bits."""
    recipe = recipe_of("pair", train__max_steps=4, objective="dpo")
    said = go(recipe, tmp_path / "whole")
    assert "head: trl (onestage: 100 ms, 7.45e-09 GiB; liger: not here; trl: 10 ms, " in "".join(
        said
    )
    assert any("trl's: values differ by" in line for line in said)
    assert noted(tmp_path / "whole") == f"trl {pytest.__version__}"
    go(recipe, tmp_path / "cut", callbacks=[StopAt(2)])
    assert len(read_metrics(tmp_path / "cut")) == 2
    another.calls = 0
    assert "head: trl (as the run was begun)" in go(recipe, tmp_path / "cut", resume=True)
    assert another.calls > 2
    assert not is_free("model.head", {}, {})  # another is another run
    ends = [read_metrics(tmp_path / out)[-1] for out in ("whole", "cut")]
    assert ends[0]["loss"] == ends[1]["loss"]


@pytest.mark.usefixtures("racing")
def test_one_that_is_not_exact_on_the_runs_data_makes_way(
    another: Another, recipe_of: Make, tmp_path: Path
) -> None:
    another.wrong = 0.5
    said = go(recipe_of("demonstration", train__max_steps=1, objective="sft"), tmp_path / "out")
    assert any("head: onestage (trl is not exact on these data: trl's: values" in s for s in said)
    assert any("law 3 chunked head = full logits: holds (values differ" in s for s in said)
    assert noted(tmp_path / "out") == "onestage"


def test_one_that_is_named_is_taken_or_the_run_is_not_begun(
    another: Another, recipe_of: Make, tmp_path: Path
) -> None:
    recipe = recipe_of("demonstration", train__max_steps=1, objective="sft")
    recipe["model"]["head"] = "trl"
    assert "head: trl (as the recipe says)" in go(recipe, tmp_path / "one")
    assert another.calls
    another.wrong = 0.5
    with pytest.raises(
        RecipeError, match=r"head: trl is not exact on these data \(trl's: values dif"
    ):
        go(recipe, tmp_path / "two", self_check=False)


def test_one_that_cannot_be_had_here_is_refused(
    recipe_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of("demonstration")
    recipe["model"]["head"] = "liger"
    monkeypatch.setattr(head_ways, "installed", lambda name: "")
    with pytest.raises(
        RecipeError, match=r"liger-kernel is not installed here \(pip install liger"
    ):
        Draft(parse_recipe(recipe)).refuse()
    monkeypatch.setattr(head_ways, "installed", lambda name: "0.8.5")
    with pytest.raises(
        RecipeError, match=r"model\.head: liger: it runs on GPUs only; or leave model"
    ):
        Draft(parse_recipe(recipe)).refuse()


def test_check_says_who_will_race(monkeypatch: pytest.MonkeyPatch) -> None:
    model = parse_recipe({"model": "m", "data": {"a": "b"}}).model
    assert heads.racing(model) == []
    monkeypatch.setattr(heads, "device_here", lambda: "cuda")
    monkeypatch.setattr(heads, "cannot", lambda name, device: "no" if name == "liger" else "")
    (line,) = heads.racing(model)
    assert line.startswith("head: onestage's is tried beside trl when the run begins")


def test_a_reward_model_has_no_such_head(recipe_of: Make) -> None:
    recipe = recipe_of("pair", objective="bradley_terry")
    recipe["model"] |= {"head": "onestage", "task": "reward"}
    draft = Draft(parse_recipe(recipe))
    draft.read()
    draft.refuse()
    assert any(
        line.startswith("model.head changes nothing of a reward model") for line in idle(draft)
    )
