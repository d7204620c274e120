"""Callbacks: told of everything in order, from Python and from a recipe; trackers are among them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.tiny import write_rows

from onestage.config import RecipeError
from onestage.runfolder import read_metrics
from onestage.training.callbacks import Callback
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe
from onestage.training.run import Run

Make = Callable[..., dict[str, Any]]

WRITER = """
from dataclasses import dataclass
from onestage.training.callbacks import Callback


@dataclass
class Writer(Callback):
    file: str

    def __post_init__(self):
        with open(self.file, "a") as opened:
            print("made", file=opened)

    def step(self, run, loss):
        with open(self.file, "a") as opened:
            print(run.step, loss, file=opened)
"""


def go(recipe: dict[str, Any], out: Path, *callbacks: Callback) -> None:
    carry_out(parse_recipe(recipe), out, say=lambda _: None, callbacks=callbacks, self_check=False)


class Notes(Callback):
    def __init__(self) -> None:
        self.told: list[Any] = []

    def begin(self, run: Run) -> None:
        self.told.append(("begin", run.step, run.steps))

    def step(self, run: Run, loss: float) -> None:
        self.told.append(("step", run.step, loss))

    def metrics(self, line: dict[str, Any]) -> None:
        self.told.append(("metrics", line["step"], line["loss"]))

    def end(self) -> None:
        self.told.append(("end",))


def test_a_callback_is_told_of_everything_in_order(recipe_of: Make, tmp_path: Path) -> None:
    notes = Notes()
    recipe = recipe_of("demonstration", objective="sft", train__max_steps=2)
    go(recipe, tmp_path / "run", notes)
    lines = read_metrics(tmp_path / "run")
    losses = [line["loss"] for line in lines]
    assert [what for what, *_ in notes.told] == ["begin", *["step", "metrics"] * 2, "end"]
    assert notes.told[0] == ("begin", 0, 2)
    assert [told[1] for told in notes.told[1:-1]] == [1, 1, 2, 2]
    assert [t[2] for t in notes.told if t[0] == "step"] == pytest.approx(losses, rel=1e-6)


def test_a_certificate_is_told_before_the_end(
    recipe_of: Make, rows: dict[str, Any], tmp_path: Path
) -> None:
    """wandb refuses a line after its end, and mlflow begins another run for it."""
    told = []

    class Lines(Callback):
        def metrics(self, line: dict[str, Any]) -> None:
            told.append(line)

        def end(self) -> None:
            told.append({"end": True})

    text = {"name": "known", "path": str(write_rows(tmp_path / "known.jsonl", rows["text"] * 8))}
    recipe = recipe_of("demonstration", objective="sft", train__max_steps=1)
    recipe["keep"] = [{"what": "kl", "at_most": 5.0, "of": text, "by": "step", "steps": 1}]
    go(recipe, tmp_path / "run", Lines())
    assert "keep/known/held_out" in told[-2]
    assert told[-1] == {"end": True}


def test_the_end_is_told_when_an_error_ends_the_run(recipe_of: Make, tmp_path: Path) -> None:
    class Broken(Notes):
        def step(self, run: Run, loss: float) -> None:
            raise RuntimeError("no more")

    broken = Broken()
    recipe = recipe_of("demonstration", objective="sft", train__max_steps=2)
    with pytest.raises(RuntimeError, match="no more"):
        go(recipe, tmp_path / "run", broken)
    assert broken.told[-1] == ("end",)


def test_a_recipe_names_a_callback_in_a_file(recipe_of: Make, tmp_path: Path) -> None:
    (tmp_path / "writer.py").write_text(WRITER)
    recipe = recipe_of("demonstration", objective="sft", train__max_steps=3)
    recipe["train"]["callbacks"] = [
        {"name": f"{tmp_path / 'writer.py'}:Writer", "file": str(tmp_path / "steps")}
    ]
    go(recipe, tmp_path / "run")
    steps = [line.split()[0] for line in (tmp_path / "steps").read_text().splitlines()]
    assert steps == ["made", "1", "2", "3"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("trackr", "did you mean 'tracker'"),
        ("nowhere.to:Be", "No module named 'nowhere'"),
        ({"name": "tracker", "to": "tensorbord"}, "did you mean 'tensorboard'"),
        ({"name": "tracker"}, "to"),
    ],
)
def test_a_callback_that_is_not_there_is_refused(
    given: Any, told: str, recipe_of: Make, tmp_path: Path
) -> None:
    recipe = recipe_of("demonstration", objective="sft")
    recipe["train"]["callbacks"] = [given]
    with pytest.raises(RecipeError, match=told):
        go(recipe, tmp_path / "run")
