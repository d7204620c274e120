"""What suites found while a study's runs went."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from onestage.report.reading import Reader, is_number, mapping
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
    found: dict[tuple[int, str], float] = {}
    for part in run.parts:
        for line in part.evaluations:
            headline, step = line.get("headline"), line.get("step")
            told = mapping(mapping(line.get("metrics")).get(str(headline))).get("value")
            if is_number(step) and is_number(told):
                metric = f"suite/{line.get('suite')}/{headline}"
                found[part.before + int(step), metric] = float(told)
    return found
