"""Metrics over the axes of a study: lines over one axis, heatmaps over two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onestage.report.cells import Compared, Setting
from onestage.report.figures import Figure, Look, axis, plain, rounded
from onestage.report.markup import Html, el, join
from onestage.report.numbers import UNKNOWN, number, setting
from onestage.report.reading import is_number

HEATMAPS = 12


def axes_section(found: Compared, looks: Mapping[str, Look]) -> Html | None:
    """A figure for each axis or pair of axes, its metric to be picked."""
    rows = [one for one in found.settings() if one.axes]
    axes = dict.fromkeys(name for one in rows for name, _ in one.axes)
    varied = [name for name in axes if len({dict(o.axes).get(name) for o in rows} - {None}) > 1]
    metrics = [name for name in found.headline if any(found.mean(one, name) for one in rows)]
    if not varied or not metrics:
        return None
    if len(varied) == 1:
        return _lines(found, looks, rows, varied[0], metrics).html()
    maps = _heatmaps(found, rows, varied[0], varied[1], metrics)
    return join(
        [
            el(
                "p",
                "Means over seeds, one scale for all maps; a star marks the best.",
                class_="note",
            ),
            el("div", *(figure.html() for figure in maps), class_="grid", data_together=True),
        ]
    )


def _lines(
    found: Compared, looks: Mapping[str, Look], rows: list[Setting], name: str, metrics: list[str]
) -> Figure:
    values = list(dict.fromkeys(dict(one.axes)[name] for one in rows if name in dict(one.axes)))
    numeric = all(is_number(value) for value in values)
    traces: list[dict[str, Any]] = []
    for metric in metrics:
        for method in dict.fromkeys(one.method for one in rows):
            mine = [
                (dict(o.axes).get(name), found.mean(o, metric)) for o in rows if o.method == method
            ]
            known = [
                (place, mean) for place, mean in mine if mean is not None and place is not None
            ]
            if not known:
                continue
            look, places = looks[method], [p if numeric else plain(setting(p)) for p, _ in known]
            means = [mean for _, mean in known]
            if any(mean.half for mean in means):
                edge = [rounded(m.high) for m in means] + [rounded(m.low) for m in reversed(means)]
                traces.append(
                    {
                        "x": places + places[::-1],
                        "y": edge,
                        "fill": "toself",
                        "mode": "lines",
                        "line": {"width": 0},
                        "fillcolor": look.faint(0.16),
                        "hoverinfo": "skip",
                        "showlegend": False,
                        "pick": plain(metric),
                    }
                )
            traces.append(
                {
                    "x": places,
                    "y": [rounded(mean.mean) for mean in means],
                    "name": plain(method),
                    "mode": "lines+markers",
                    "line": {"color": look.colour, "dash": look.dash, "width": 2},
                    "marker": {"color": look.colour, "symbol": look.symbol, "size": 8},
                    "text": [f"± {number(m.half)} ({m.n} seeds)" if m.half else "" for m in means],
                    "hovertemplate": "%{x}: %{y:.4g} %{text}",
                    "pick": plain(metric),
                }
            )
    wide = numeric and min(values) > 0 and max(values) / min(values) >= 20
    ticks = {"tickvals": values, "ticktext": [plain(setting(value)) for value in values]}
    kind = {"type": "log", **ticks} if wide else {} if numeric else {"type": "category"}
    layout = {"xaxis": axis(name, **kind), "yaxis": axis("value of the metric")}
    note = "Mean over seeds; the band is the 95 % interval."
    return Figure(f"Over {name}", traces, layout, note, height=360, pick="metric")


def _heatmaps(
    found: Compared, rows: list[Setting], across: str, down: str, metrics: list[str]
) -> list[Figure]:
    """One for each method, and for each value of any further axis."""
    sheets: dict[str, list[Setting]] = {}
    for one in rows:
        rest = [f"{k} {setting(v)}" for k, v in one.axes if k not in (across, down)]
        sheets.setdefault(", ".join([one.method, *rest]), []).append(one)
    figures, spans = [], {metric: _span(found, rows, metric) for metric in metrics}
    for title, mine in list(sheets.items())[:HEATMAPS]:
        columns = list(dict.fromkeys(dict(one.axes).get(across) for one in mine))
        lines = list(dict.fromkeys(dict(one.axes).get(down) for one in mine))
        traces = []
        for metric in metrics:
            means = {
                (dict(one.axes).get(across), dict(one.axes).get(down)): found.mean(one, metric)
                for one in mine
            }
            sign = found.metrics[metric].sign
            top = max((sign * mean.mean for mean in means.values() if mean), default=None)
            grid = [[means.get((column, line)) for column in columns] for line in lines]
            text = [
                [
                    ("★ " if mean and sign and sign * mean.mean == top else "")
                    + (number(mean.mean) if mean else UNKNOWN)
                    for mean in line
                ]
                for line in grid
            ]
            traces.append(
                {
                    "type": "heatmap",
                    "x": [plain(setting(value)) for value in columns],
                    "y": [plain(setting(value)) for value in lines],
                    "z": [[rounded(mean.mean) if mean else None for mean in line] for line in grid],
                    "text": text,
                    "texttemplate": "%{text}",
                    "colorscale": [[0, "@panel"], [1, "@accent"]],
                    "reversescale": sign < 0,
                    **spans[metric],
                    "showscale": False,
                    "xgap": 2,
                    "ygap": 2,
                    "hovertemplate": f"{plain(across)} %{{x}}, {plain(down)} %{{y}}: %{{z:.4g}}",
                    "name": "",
                    "pick": plain(metric),
                }
            )
        layout = {
            "xaxis": axis(across, type="category"),
            "yaxis": axis(down, type="category", automargin=True),
        }
        height = 130 + 44 * len(lines)
        figures.append(Figure(title, traces, layout, height=height, pick="metric"))
    return figures


def _span(found: Compared, rows: list[Setting], metric: str) -> dict[str, float | None]:
    """The colour scale of a metric, for all maps."""
    means = [mean.mean for one in rows if (mean := found.mean(one, metric))]
    return {"zmin": rounded(min(means)), "zmax": rounded(max(means))} if means else {}
