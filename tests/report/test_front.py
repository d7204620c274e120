"""`onestage front`: runs are read from their folders and compared by hand-computable numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from onestage.cli._terminal import app
from onestage.report.front import FrontError, compare, result_of


def run_folder(folder: Path, losses: dict[str, Any], best: dict[str, float] | None = None) -> Path:
    folder.mkdir(parents=True)
    recipe = {"optimum": {"given": best}} if best else {}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    ends = {f"eval/terms/{term}": value for term, value in losses.items()}
    lines = [
        {"step": 0, "eval/terms/a": 2.0, "eval/terms/b": 3.0},
        {"step": 10, "loss": 1.0, "tokens": 500},
        {"step": 10, **ends},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def three(tmp_path: Path) -> list[Path]:
    best = {"a": 0.5, "b": 1.0}
    return [
        run_folder(tmp_path / "left", {"a": 0.75, "b": 2.0}, best),
        run_folder(tmp_path / "right", {"a": 1.5, "b": 1.25}, best),
        run_folder(tmp_path / "behind", {"a": 1.6, "b": 2.5}, best),
    ]


def test_gaps_front_and_hypervolume(tmp_path: Path) -> None:
    found = compare([result_of(folder) for folder in three(tmp_path)], {})
    assert found.optimum == {"a": 0.5, "b": 1.0}
    assert found.runs[0].gaps == pytest.approx({"a": 0.25, "b": 1.0})
    assert found.runs[0].normalised == pytest.approx({"a": 0.25 / 1.5, "b": 0.5})
    assert found.runs[0].distance == pytest.approx(math.hypot(0.25, 1.0))
    assert [one.on_front for one in found.runs] == [True, True, False]
    assert found.volume == pytest.approx(1.25 * 1.0 + 0.5 * 0.75)


def test_without_a_given_optimum_the_best_run_is_it(tmp_path: Path) -> None:
    runs = [
        result_of(run_folder(tmp_path / "x", {"a": 1.0, "b": 2.0})),
        result_of(run_folder(tmp_path / "y", {"a": 1.5, "b": 1.0})),
    ]
    assert compare(runs, {}).optimum == {"a": 1.0, "b": 1.0}
    assert compare(runs, {"a": 0.5}).optimum == {"a": 0.5, "b": 1.0}


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    one = result_of(run_folder(tmp_path / "one", {"a": 1.0, "b": 1.0}, {"a": 0.1}))
    other = result_of(run_folder(tmp_path / "other", {"a": 1.0, "b": 1.0}, {"a": 0.2}))
    with pytest.raises(FrontError, match=r"different f\* of a"):
        compare([one, other], {})
    assert compare([one, other], {"a": 0.1}).optimum["a"] == 0.1
    with pytest.raises(FrontError, match="no run has a term 'c'"):
        compare([one], {"c": 0.1})
    third = result_of(run_folder(tmp_path / "third", {"a": 1.0}))
    with pytest.raises(FrontError, match="only runs with the same terms"):
        compare([one, third], {})


def test_damaged_and_unfinished_folders_are_named_not_raised(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "cannot be read (recipe.yaml is missing)" in result_of(empty).problem
    (empty / "recipe.yaml").write_text("a: [")
    assert len(result_of(empty).problem.splitlines()) == 1
    (empty / "recipe.yaml").write_text("{}")
    (empty / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    assert "no evaluation" in result_of(empty).problem
    whole = run_folder(tmp_path / "whole", {"a": 1.0, "b": 1.0})
    assert not result_of(whole).problem
    with (whole / "metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "eval/ter')
    assert "damaged metrics (1 of its lines), maybe its last" in result_of(whole).problem
    assert "not finite" in result_of(run_folder(tmp_path / "nan", {"a": None, "b": 1.0})).problem


def test_the_command(tmp_path: Path) -> None:
    folders = three(tmp_path)
    (tmp_path / "empty").mkdir()
    words = [
        "front",
        *map(str, folders),
        str(tmp_path / "empty"),
        "--out",
        str(tmp_path / "f.json"),
    ]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "left *" in result.output
    assert "1.0308" in result.output
    assert "hypervolume against the start 1.625" in result.output
    assert json.loads((tmp_path / "f.json").read_text())["runs"][2]["front"] is False
    assert CliRunner().invoke(app, ["front", str(tmp_path / "empty")]).exit_code == 1
    bad = CliRunner().invoke(app, ["front", str(folders[0]), "--optimum", "a"])
    assert bad.exit_code == 1
