"""What was gained and what was forgotten: changes against the base."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onestage.report.cells import Compared, Setting
from onestage.report.figures import Figure, Look, axis, plain, rounded
from onestage.report.markup import Html, el, join
from onestage.report.numbers import Mean, mean_of, number

MOST = 12
"""Settings that have bars."""
PANELS = 9
WHISKERS = "Whiskers: 95 % interval over seeds."


def gains_section(found: Compared, looks: Mapping[str, Look]) -> Html | None:
    """Bars of the change against the base for each group of metrics."""
    rows = [one for one in found.settings() if one.method != found.base][:MOST]
    if found.base is None or not rows:
        return None
    shares = [name for name in found.metrics if found.share(name)]
    others = [n for n, m in found.metrics.items() if m.sign and not found.share(n)]
    figures = []
    groups: dict[str, list[str]] = {}
    for name in shares:
        groups.setdefault(found.metrics[name].group or name, []).append(name)
    bars = [_bars(found, looks, one, groups) for one in rows]
    spread = any(bar["error_x"]["visible"] for bar in bars)
    if any(bar["x"] for bar in bars):
        says = "; ".join(f"{group}: {', '.join(names)}" for group, names in groups.items())
        figures.append(
            Figure(
                f"Change against {found.base}, for the better to the right",
                bars,
                {
                    "barmode": "group",
                    "xaxis": axis("change of the share (0 to 1)", zeroline=True),
                    "yaxis": {"autorange": "reversed", "automargin": True},
                    "showlegend": len(rows) > 1,
                },
                f"Mean of the metrics of a group ({says}). {WHISKERS if spread else ''}",
                height=120 + max(46, 20 * len(rows)) * max(1, len(groups)),
            )
        )
    for name in others[:PANELS]:
        bar = _panel(found, looks, name, rows)
        if bar is not None:
            figures.append(bar)
    left = f"Drawn for the first {MOST} settings." if len(found.settings()) - 1 > MOST else None
    if not figures:
        return None
    return join(
        [
            el("p", left, class_="note") if left else None,
            figures[0].html(),
            el("div", *(figure.html() for figure in figures[1:]), class_="grid"),
        ]
    )


def group_change(found: Compared, one: Setting, names: list[str]) -> Mean | None:
    """Mean change of some metrics for the better, seed by seed."""
    changes = [(found.metrics[name].sign, found.changes(one, name)) for name in names]
    changes = [(sign, change) for sign, change in changes if change]
    if not changes:
        return None
    seeds = set.intersection(*(set(change) for _, change in changes))
    return mean_of(
        [sum(sign * c[seed] for sign, c in changes) / len(changes) for seed in sorted(seeds)]
    )


def _bars(
    found: Compared, looks: Mapping[str, Look], one: Setting, groups: Mapping[str, list[str]]
) -> dict[str, Any]:
    means = {group: group_change(found, one, names) for group, names in groups.items()}
    known = {group: mean for group, mean in means.items() if mean is not None}
    return {
        "type": "bar",
        "orientation": "h",
        "name": plain(one.label),
        "y": [plain(group) for group in known],
        "x": [rounded(mean.value) for mean in known.values()],
        "error_x": _whiskers(list(known.values())),
        "marker": {"color": looks[one.method].colour},
        "hovertemplate": "%{y}: %{x:+.3f}",
    }


def _panel(
    found: Compared, looks: Mapping[str, Look], name: str, rows: list[Setting]
) -> Figure | None:
    """A metric with a scale of its own."""
    known = {one: change for one in rows if (change := found.change(one, name)) is not None}
    if not known:
        return None
    metric = found.metrics[name]
    base = found.base_of(next(iter(known)))
    before = found.mean(base, name) if base else None
    bar = {
        "type": "bar",
        "orientation": "h",
        "y": [plain(one.label) for one in known],
        "x": [rounded(change.value) for change in known.values()],
        "error_x": _whiskers(list(known.values())),
        "marker": {"color": [looks[one.method].colour for one in known]},
        "hovertemplate": "%{y}: %{x:+.4g}",
    }
    layout = {
        "xaxis": axis(f"change of {name}", zeroline=True),
        "yaxis": {"autorange": "reversed", "automargin": True},
        "showlegend": False,
    }
    at = f"{found.base} is at {number(before.value)}" if before else ""
    title = f"{name} ({metric.better} is better)"
    return Figure(title, [bar], layout, at, height=110 + 24 * len(known))


def _whiskers(means: list[Mean]) -> dict[str, Any]:
    return {
        "type": "data",
        "array": [rounded(mean.half) or 0 for mean in means],
        "color": "@text/0.6",
        "thickness": 1.2,
        "width": 3,
        "visible": any(mean.half for mean in means),
    }
