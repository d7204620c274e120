"""A few of the faults that `python -m bench.faults` makes, and what it must not overlook."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import flat, streams
from bench.faults import inputs, recipes
from bench.faults.damage import Place, tried
from bench.faults.runs import Said, chances
from onestage.config import RecipeError
from onestage.training.choices import objectives_of
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe


def test_inputs_that_are_none(tmp_path: Path) -> None:
    told, wrong = inputs.faults(8, 5, tmp_path)
    assert told.startswith("8 inputs: ")
    assert not wrong


def test_recipes_that_are_none(tmp_path: Path) -> None:
    told, wrong = recipes.faults(12, 5, tmp_path)
    assert told.startswith("12 recipes: ")
    assert not wrong


@pytest.mark.parametrize("given", [-1, 1.5, True, None, ["dpo"]])
def test_an_objective_that_is_no_name_table_or_map(given: Any) -> None:
    with pytest.raises(RecipeError, match=r"^objective: expected a name, .* got "):
        objectives_of(given, [], 64)


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ("data rows: 8 pair; 104 tokens", ""),
        ("data rows: 1 group, 2 pair; 1,104 tokens; 4 refused; 1 ties; 3 prompts cut", ""),
        ("data rows: 7 pair; 104 tokens; 1 prompts cut", "7 of 8 rows are accounted for"),
        ("ready to train", "no line about the data"),
    ],
)
def test_rows_that_nobody_counted_are_a_fault(said: str, fault: str) -> None:
    assert inputs.uncounted(f"warning\n{said}\nmore") == fault


@pytest.mark.parametrize(("kept", "what"), [("the same", "same"), ("other", "FAULT")])
def test_another_result_without_a_word_is_a_fault(kept: str, what: str, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "a").write_text("text")
    place = Place(
        "place", tmp_path / "whole", lambda *_: ["list"], lambda *_: kept, True, "the same"
    )
    assert tried(place, "flipped", chances(0, "a"), tmp_path)[0] == what


def test_a_traceback_is_a_fault() -> None:
    assert Said(["list"]).plain
    assert Said(["train", "/none.yaml"]).refused
    said = Said(["train", "/none.yaml"])
    said.text += "\nTraceback (most recent call last):"
    assert not said.plain


def test_a_run_of_everything_is_watched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    watch = flat.Watch(2)
    content = parse_recipe(flat.recipe(tmp_path, 2))
    carry_out(content, tmp_path / "out", say=lambda line: None, callbacks=[watch])
    assert capsys.readouterr().out.count(" open files, ") == len(watch.seen) == 2
    watch.seen[-1] = (2 * watch.seen[0][0], *watch.seen[0][1:])
    assert not watch.flat


def test_rows_of_every_kind_in_many_streams(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["streams", "--rows", "240", "--streams", "12", "--steps", "2"]
    monkeypatch.setattr("sys.argv", words)
    streams.main()
    said = capsys.readouterr().out
    assert "235 rows in 12 streams" in said
    assert "a draw: " in said
