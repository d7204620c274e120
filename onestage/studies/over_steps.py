"""What suites found while a study's runs went."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from onestage.report.reading import Reader
from onestage.report.steps import CURVES
from onestage.report.trained import Trained, is_run, read_run
from onestage.studies.cells import Cell
from onestage.studies.results import TidyRow, summary, write_table


def write_curves(out: Path, cells: Sequence[Cell], axes: Sequence[str]) -> None:
    """`curves.csv` of the study in `out`, mean and interval over seeds at each step; none where no run
    was asked on the way."""
    if rows := over_steps(cells, out / "cells"):
        write_table(out / CURVES, summary(rows, [*axes, "step"]))
    else:
        (out / CURVES).unlink(missing_ok=True)


def over_steps(cells: Iterable[Cell], folder: Path) -> list[TidyRow]:
    """The headline of every suite at every step it was asked at, as metric `suite/NAME/HEADLINE`, with
    an axis `step` (those of a chain's stages added up). `cells`: of the study, in `folder`."""
    rows = []
    for cell in cells:
        run = folder / cell.name / "run"
        if cell.purpose != "test" or not is_run(run):
            continue
        for (step, metric), value in on_the_way(read_run(run, cell.name, Reader())).items():
            axes = {**cell.axes, "step": step}
            rows.append(TidyRow("test", cell.method, axes, cell.seed, cell.name, metric, value))
    return rows


def on_the_way(run: Trained) -> dict[tuple[int, str], float]:
    """Values by step and metric. Where a stage ends and the next begins there is one."""
    lines = [line for part in run.parts for line in part.evaluations]
    asked = dict.fromkeys(f"suite/{line.get('suite')}/{line.get('headline')}" for line in lines)
    return {
        (step, metric): value
        for metric in asked
        for step, value in run.series(metric)
        if value is not None
    }
