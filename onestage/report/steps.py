"""What suites found while a study's runs went, over their steps: means over seeds, from `curves.csv`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from onestage.report.axes import BANDS, note_of, traces_of
from onestage.report.cells import Compared, Setting, Steps, hashable
from onestage.report.figures import Figure, Look, axis
from onestage.report.markup import Html, join
from onestage.report.reading import Reader, number_of, value_of
from onestage.stats import Interval

CURVES = "curves.csv"
FIXED = {"method", "metric", "step", "mean", "low", "high", "sd", "n"}
"""Columns that are no axes of the study."""


def read_curves(folder: Path, reader: Reader) -> list[Steps]:
    """What `curves.csv` of a study's folder holds; nothing where there is none."""
    found: dict[tuple[Setting, str], Steps] = {}
    lost = 0
    for row in reader.table(folder / CURVES, folder.name):
        method, metric = row.get("method"), row.get("metric")
        step, mean = number_of(row.get("step")), number_of(row.get("mean"))
        if not method or not metric or step is None or mean is None:
            lost += 1
            continue
        told = {k: value_of(v) for k, v in row.items() if k and v and k not in FIXED}
        axes = tuple((k, hashable(v)) for k, v in told.items())
        known = (number_of(row.get(name)) for name in ("low", "high", "n", "sd"))
        low, high, n, sd = (math.nan if value is None else value for value in known)
        one = Setting(method, axes)
        line = found.setdefault((one, metric), Steps(one, metric))
        line.means[int(step)] = Interval(mean, low, high, 1 if math.isnan(n) else int(n), sd)
    if lost:
        reader.tell(folder.name, f"{lost} lines of {CURVES} cannot be read")
    return list(found.values())


def steps_section(found: Compared, looks: Mapping[str, Look]) -> Html | None:
    """A figure for each place of the axes, of every metric."""
    groups: dict[str, list[Steps]] = {}
    for line in found.curves:
        title = ", ".join(filter(None, [line.metric, line.of.place]))
        groups.setdefault(title, []).append(line)
    return join([_figure(*one, looks).html() for one in groups.items()]) if groups else None


def _figure(title: str, lines: list[Steps], looks: Mapping[str, Look]) -> Figure:
    bands = len(lines) <= BANDS
    traces = [
        trace
        for line in lines
        for trace in traces_of(
            *(line.of.method, list(line.means), list(line.means.values())),
            *(looks[line.of.method], bands),
        )
    ]
    layout = {"xaxis": axis("step"), "yaxis": axis(lines[0].metric), "labels": True}
    return Figure(title, traces, layout, note_of(bands), height=360)


def step_lines(lines: list[Steps]) -> Iterator[tuple[str, list[int], list[Steps]]]:
    """Each metric with the steps at which most of its lines were asked, for a table."""
    for metric in dict.fromkeys(line.metric for line in lines):
        mine = [line for line in lines if line.metric == metric]
        every = sorted({step for line in mine for step in line.means})
        shown = [s for s in every if 2 * sum(s in line.means for line in mine) > len(mine)]
        yield metric, shown or every, mine
