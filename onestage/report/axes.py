"""Metrics over the axes of a study: lines over one axis, heatmaps over two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onestage.report.cells import Compared, Setting
from onestage.report.figures import Figure, Look, axis, rounded
from onestage.report.markup import Html, el, join
from onestage.report.numbers import UNKNOWN, number, setting
from onestage.report.reading import is_number
from onestage.stats import Interval

HEATMAPS = 12
BANDS = 4
"""Methods whose intervals can be told apart as bands."""
WIDE = 20
"""An axis whose greatest value is so many times its least is drawn by logarithms."""


def axes_section(found: Compared, looks: Mapping[str, Look]) -> Html | None:
    """Of the methods that vary along one axis a figure of lines, of others maps over their first two
    axes; the metric is to be picked."""
    rows = [one for one in found.settings() if one.axes]
    metrics = [name for name in found.headline if any(found.mean(one, name) for one in rows)]
    groups: dict[tuple[str, ...], list[Setting]] = {}
    for one in rows:
        groups.setdefault(_varied(rows, one.method), []).append(one)
    groups = {axes: some for axes, some in groups.items() if axes}
    if not groups or not metrics:
        return None
    lines = [
        _lines(found, looks, some, axes[0], metrics).html()
        for axes, some in groups.items()
        if len(axes) == 1
    ]
    planes = {axes: some for axes, some in groups.items() if len(axes) > 1}
    return join([*lines, _maps(found, planes, metrics) if planes else None])


def _varied(rows: Sequence[Setting], method: str) -> tuple[str, ...]:
    """The axes on which a method has several values."""
    mine = [one for one in rows if one.method == method]
    axes = dict.fromkeys(name for one in mine for name, _ in one.axes)
    return tuple(name for name in axes if len({one.at(name) for one in mine}) > 1)


def _maps(
    found: Compared, planes: Mapping[tuple[str, ...], list[Setting]], metrics: Sequence[str]
) -> Html:
    rows = [one for some in planes.values() for one in some]
    spans = {metric: _span(found, rows, metric) for metric in metrics}
    every = [sheets(some, axes[0], axes[1]) for axes, some in planes.items()]
    maps = [_map(found, sheet, spans) for some in every for sheet in some[:HEATMAPS]]
    note = "Means over seeds, one scale for all maps; a star marks the best."
    if len(maps) < (whole := sum(map(len, every))):
        note += f" Drawn are {len(maps)} of {whole} maps; the tables have all."
    grid = el("div", *(figure.html() for figure in maps), class_="grid", data_together=True)
    return join([el("p", note, class_="note"), grid])


@dataclass(frozen=True)
class _Across:
    """The axis that lines go along: numbers at their places, words one beside the other."""

    name: str
    values: Sequence[Any]

    @property
    def numeric(self) -> bool:
        return all(is_number(value) for value in self.values)

    def place(self, one: Setting) -> Any:
        value = one.at(self.name)
        return value if self.numeric else setting(value)

    def layout(self) -> dict[str, Any]:
        if not self.numeric:
            return axis(self.name, type="category")
        least, most = min(self.values), max(self.values)
        if least <= 0 or most / least < WIDE:
            return axis(self.name)
        ticks = [setting(value) for value in self.values]
        return axis(self.name, type="log", tickvals=list(self.values), ticktext=ticks)


def _lines(
    found: Compared,
    looks: Mapping[str, Look],
    rows: Sequence[Setting],
    name: str,
    metrics: Sequence[str],
) -> Figure:
    rows = [one for one in rows if one.at(name) is not None]
    across = _Across(name, list(dict.fromkeys(one.at(name) for one in rows)))
    lines: dict[str, list[Setting]] = {}
    for one in rows:
        lines.setdefault(one.method, []).append(one)
    bands = len(lines) <= BANDS
    traces = [
        {**trace, "pick": metric}
        for metric in metrics
        for method, mine in lines.items()
        for trace in _curve(found, looks[method], mine, across, metric, bands)
    ]
    units = {metric: found.metrics[metric].title for metric in metrics}
    layout = {"xaxis": across.layout(), "yaxis": axis(units[metrics[0]]), "labels": True}
    more, note = {"units": units}, note_of(bands)
    return Figure(f"Over {name}", traces, layout, note, height=360, pick="metric", more=more)


def note_of(bands: bool) -> str:
    """How lines of `traces_of` are to be read."""
    return f"Mean over seeds; {'bands' if bands else 'whiskers'}: the 95 % interval."


def _curve(
    found: Compared, look: Look, rows: Sequence[Setting], across: _Across, metric: str, bands: bool
) -> list[dict[str, Any]]:
    """A method's line through its settings."""
    known = [(one, mean) for one in rows if (mean := found.mean(one, metric)) is not None]
    if not known:
        return []
    places, means = [across.place(one) for one, _ in known], [mean for _, mean in known]
    return traces_of(known[0][0].method, places, means, look, bands)


def traces_of(
    name: str, places: list[Any], means: Sequence[Interval], look: Look, bands: bool
) -> list[dict[str, Any]]:
    """A line through means, on its band (or with whiskers) where there is more than one seed."""
    line = {
        "x": places,
        "y": [rounded(mean.mean) for mean in means],
        "name": name,
        "mode": "lines+markers",
        "line": {"color": look.colour, "dash": look.dash, "width": 2},
        "marker": {"color": look.colour, "symbol": look.symbol, "size": 8},
        "text": [f"± {number(m.half)} ({m.n} seeds)" if m.half else "" for m in means],
    }
    if not any(mean.half for mean in means):
        return [line]
    halves = {"array": [rounded(mean.half) or 0 for mean in means], "visible": True}
    return [_band(places, means, look), line] if bands else [{**line, "error_y": halves}]


def _band(places: list[Any], means: Sequence[Interval], look: Look) -> dict[str, Any]:
    """The intervals, as the outline of an area: along their upper ends and back along the lower ones."""
    upper = [rounded(mean.mean + (mean.half or 0.0)) for mean in means]
    lower = [rounded(mean.mean - (mean.half or 0.0)) for mean in means]
    return {
        "x": places + places[::-1],
        "y": upper + lower[::-1],
        "fill": "toself",
        "mode": "lines",
        "line": {"width": 0},
        "fillcolor": look.faint(0.16),
        "hoverinfo": "skip",
        "showlegend": False,
    }


@dataclass(frozen=True)
class Sheet:
    """The settings of one method, at one place on any further axes, in the plane of two axes."""

    title: str
    across: str
    down: str
    settings: list[Setting]

    @property
    def columns(self) -> list[Any]:
        return list(dict.fromkeys(one.at(self.across) for one in self.settings))

    @property
    def lines(self) -> list[Any]:
        return list(dict.fromkeys(one.at(self.down) for one in self.settings))

    def grid(self, found: Compared, metric: str) -> list[list[Interval | None]]:
        """Its mean in every line and column; None where there is none."""
        means = {
            (one.at(self.across), one.at(self.down)): found.mean(one, metric)
            for one in self.settings
        }
        return [[means.get((column, line)) for column in self.columns] for line in self.lines]


def sheets(rows: Sequence[Setting], across: str, down: str) -> list[Sheet]:
    """One for each method and value of any further axis."""
    found: dict[str, Sheet] = {}
    for one in rows:
        rest = [f"{k} {setting(v)}" for k, v in one.axes if k not in (across, down)]
        title = ", ".join([one.method, *rest])
        found.setdefault(title, Sheet(title, across, down, [])).settings.append(one)
    return list(found.values())


def _map(found: Compared, sheet: Sheet, spans: Mapping[str, dict[str, Any]]) -> Figure:
    traces = [{**_heatmap(found, sheet, metric), **span} for metric, span in spans.items()]
    layout = {
        "xaxis": axis(sheet.across, type="category"),
        "yaxis": axis(sheet.down, type="category", automargin=True),
    }
    height = 130 + 44 * len(sheet.lines)
    return Figure(sheet.title, traces, layout, height=height, pick="metric")


def _heatmap(found: Compared, sheet: Sheet, metric: str) -> dict[str, Any]:
    sign, grid = found.metrics[metric].sign, sheet.grid(found, metric)
    top = max((sign * mean.mean for line in grid for mean in line if mean), default=None)

    def told(mean: Interval | None) -> str:
        if mean is None:
            return UNKNOWN
        return ("★ " if sign and sign * mean.mean == top else "") + number(mean.mean)

    return {
        "type": "heatmap",
        "x": [setting(value) for value in sheet.columns],
        "y": [setting(value) for value in sheet.lines],
        "z": [[rounded(mean.mean) if mean else None for mean in line] for line in grid],
        "text": [[told(mean) for mean in line] for line in grid],
        "texttemplate": "%{text}",
        "colorscale": [[0, "@panel"], [1, "@accent"]],
        "reversescale": sign < 0,
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
        "name": "",
        "pick": metric,
    }


def _span(found: Compared, rows: Sequence[Setting], metric: str) -> dict[str, float | None]:
    """The colour scale of a metric, for all maps."""
    means = [mean.mean for one in rows if (mean := found.mean(one, metric))]
    return {"zmin": rounded(min(means)), "zmax": rounded(max(means))} if means else {}
