"""What suites found while runs went, over their steps: in a study's folder, its page and its report."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from statistics import mean

import pytest
from support.report_folders import specs, write, write_lines
from support.small_studies import content, ground
from support.tiny import write_rows

from onestage.report.page import chapter_sections
from onestage.report.reading import Reader
from onestage.report.steps import read_curves, step_lines
from onestage.report.studies import read_study
from onestage.studies.cells import Cell, Purpose
from onestage.studies.file import COLUMNS, parse_study
from onestage.studies.over_steps import over_steps, write_curves
from onestage.studies.study import Study


def run(folder: Path, *asked: tuple[int, float], last: int) -> None:
    """A run's folder: what its suite found at steps, and its last step."""
    told = [
        {"step": step, "suite": "mine", "headline": "reward", "metrics": {"reward": {"value": v}}}
        for step, v in asked
    ]
    folder.mkdir(parents=True)
    write_lines(folder / "evaluations.jsonl", told)
    measured = [{"step": step, "suite/mine/reward": value} for step, value in asked]
    write_lines(folder / "metrics.jsonl", [*measured, {"step": last, "loss": 1.0}])
    write(folder / "manifest.json", {})
    (folder / "recipe.yaml").write_text("{}")


def cell(method: str, seed: int, purpose: Purpose = "test", **axes: float) -> Cell:
    return Cell(method, purpose, seed, axes, {}, {}, None, {})


def test_means_over_seeds_at_every_step(tmp_path: Path) -> None:
    """Stages follow one another, and their steps are added up; trials are not of it."""
    cells = [cell("UFT", seed, h=8) for seed in (0, 1)] + [cell("chain", 0, h=8)]
    cells.append(cell("UFT", 100, "tune", h=8))
    for one, values in zip(cells[:2], ((0.0, 0.5), (0.2, 0.9)), strict=True):
        run(tmp_path / "cells" / one.name / "run", *zip((0, 10), values, strict=True), last=10)
    run(tmp_path / "cells" / cells[3].name / "run", (0, 0.7), last=10)
    chain = tmp_path / "cells" / cells[2].name / "run"
    run(chain / "1-a", (0, 0.1), (4, 0.3), last=4)
    run(chain / "2-b", (0, 0.3), (6, 1.0), last=6)
    write(chain / "stages.json", [{"name": "a"}, {"name": "b"}])

    rows = over_steps(cells, tmp_path / "cells")
    assert {(r.method, r.axes["step"], r.seed): r.value for r in rows} == {
        **{("UFT", 0, 0): 0.0, ("UFT", 10, 0): 0.5, ("UFT", 0, 1): 0.2, ("UFT", 10, 1): 0.9},
        **{("chain", 0, 0): 0.1, ("chain", 4, 0): 0.3, ("chain", 10, 0): 1.0},
    }
    write_curves(tmp_path, cells, ["h"])
    lines = list(csv.DictReader((tmp_path / "curves.csv").open()))
    found = {(x["method"], x["h"], int(x["step"])): (float(x["mean"]), x["n"]) for x in lines}
    assert found["UFT", "8", 10] == (pytest.approx(0.7), "2")
    assert found["UFT", "8", 0] == (pytest.approx(0.1), "2")
    assert found["chain", "8", 10] == (1.0, "1")

    uft, alone = read_curves(tmp_path, Reader())
    assert (uft.of.method, uft.of.at("h"), alone.of.method) == ("UFT", 8, "chain")
    # Student's t of one degree of freedom, 12.706, times the error of the mean of .5 and .9.
    assert uft.means[10].half == pytest.approx(12.706 * 0.2, rel=1e-4)
    assert [alone.by(step) for step in (-1, 4, 9)] == [None, alone.means[4], alone.means[4]]
    # A table has the steps that most lines have.
    assert [steps for _, steps, _ in step_lines([uft, alone])] == [[0, 10]]


def test_nothing_asked_leaves_no_file(tmp_path: Path) -> None:
    """Nor one of a study that asked before its recipe was changed."""
    (tmp_path / "curves.csv").write_text("method,metric,step,mean\n")
    run(tmp_path / "cells" / cell("SFT", 0).name / "run", last=10)
    write_curves(tmp_path, [cell("SFT", 0)], [])
    assert not (tmp_path / "curves.csv").exists()
    assert read_curves(tmp_path, Reader()) == []


def test_lines_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    (tmp_path / "curves.csv").write_text(
        "method,metric,step,mean,low,high,n,sd\nSFT,m,0,0.5,,,1,\nSFT,m,much,0.5,,,1,\nSFT,m\n"
    )
    reader = Reader()
    (one,) = read_curves(tmp_path, reader)
    assert (list(one.means), one.means[0].half) == ([0], None)
    (told,) = reader.troubles
    assert told.what == "2 lines of curves.csv cannot be read"


@pytest.mark.parametrize("text", ["method,metric\nSFT,m\n", "\x00", "", "method\n" + "x" * 200_000])
def test_a_damaged_file_of_curves_stops_no_report(tmp_path: Path, text: str) -> None:
    (tmp_path / "curves.csv").write_text(text)
    write(tmp_path / "study.json", {"name": "s", "methods": []})
    assert "Over the steps" not in chapter_sections(read_study(tmp_path))


def test_values_of_axes_may_be_lists(tmp_path: Path) -> None:
    """And a method stand nowhere else."""
    (tmp_path / "curves.csv").write_text(
        'method,betas,metric,step,mean,low,high,n,sd\nSFT,"[0.9, 0.99]",m,0,0.5,,,1,\n'
    )
    write(tmp_path / "study.json", {"name": "s", "methods": []})
    assert "betas [0.9, 0.99]" in chapter_sections(read_study(tmp_path))["Over the steps"]


def test_a_study_that_asks_on_the_way(tmp_path: Path, model_folder: Path) -> None:
    base, data = ground(tmp_path / "ground", model_folder)
    rows = [{"prompt": f"count: {w}", "answer": f"{w} {w}"} for w in ("one", "two", "three")]
    write_rows(data / "check.test.jsonl", rows)
    asks = {"name": "problems", "path": "{data}/check.test.jsonl", "reward": "match"}
    study = content(base, data)
    study["recipe"]["evaluate"] = {
        "suites": [{**asks, "max_completion_length": 4}],
        **{"steps": 2, "share": 0.999},
    }
    out = tmp_path / "out"
    outcome = Study(parse_study(study), out, tmp_path / "cache", say=lambda _: None).go()
    assert not outcome.failed
    curves = read_curves(out, Reader())
    assert {line.metric for line in curves} == {"suite/problems/reward"}
    (sft,) = (line for line in curves if line.of.method == "SFT")
    assert list(sft.means) == [0, 2, 4]
    last = []
    for seed in (0, 1):
        told = (out / "cells" / f"SFT-seed={seed}" / "run" / "evaluations.jsonl").read_text()
        last.append(json.loads(told.splitlines()[-1])["metrics"]["reward"]["value"])
    assert sft.means[4].mean == pytest.approx(mean(last), rel=1e-5)
    for table in ("results", "summary", "paired", "curves"):
        with (out / f"{table}.csv").open() as file:
            assert set(next(csv.reader(file))) <= {*COLUMNS, "seed"}
    # Reopened from what a repository keeps: no runs.
    (out / "cells").rename(tmp_path / "away")
    (figure,) = specs(chapter_sections(read_study(out))["Over the steps"])
    (line,) = (trace for trace in figure["data"] if trace.get("name") == "SFT")
    assert line["x"] == [0, 2, 4]


@pytest.mark.parametrize("name", ["step", "metric", "n"])
def test_axes_are_not_named_as_columns_of_the_tables(tmp_path: Path, name: str) -> None:
    study = content(tmp_path, tmp_path, axes={name: [1, 2]})
    with pytest.raises(ValueError, match=rf"axes.{name}: is a column of the study's tables"):
        parse_study(study)
