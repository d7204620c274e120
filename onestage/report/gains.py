"""What was gained and what was forgotten: changes against the base."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from onestage.report.cells import Compared, Setting
from onestage.report.figures import Figure, Look, axis, rounded
from onestage.report.markup import Html, el, join
from onestage.report.numbers import mean_of, number
from onestage.stats import Interval

MOST = 16
"""Settings that have bars."""
PANELS = 9
WHISKERS = "Whiskers: 95 % interval over seeds."


def gains_section(found: Compared, looks: Mapping[str, Look]) -> Html | None:
    """Bars of the change against the base for each group of metrics."""
    if found.base is None or not found.headline:
        return None
    rows, note = chosen_settings(found)
    if not rows:
        return None
    groups: dict[str, list[str]] = {}
    for name in found.metrics:
        if found.share(name) and any(found.changes(one, name) for one in rows):
            groups.setdefault(found.metrics[name].group or name, []).append(name)
    others = [name for name, m in found.metrics.items() if m.sign and not found.share(name)]
    panels = (_panel(found, looks, name, rows) for name in others)
    drawn = [panel.html() for panel in panels if panel is not None]
    if not groups and not drawn:
        return None
    if len(drawn) > PANELS:
        note += f" Drawn are {PANELS} of {len(drawn)} metrics; the tables have all."
        drawn = drawn[:PANELS]
    return join(
        [
            el("p", note, class_="note") if note else None,
            _grouped(found, looks, rows, groups).html() if groups else None,
            el("div", *drawn, class_="grid"),
        ]
    )


def chosen_settings(found: Compared) -> tuple[list[Setting], str]:
    """The settings that have bars, and what to say of the choice."""
    rows = [one for one in found.settings() if one.method != found.base]
    methods = list(dict.fromkeys(one.method for one in rows))
    if len(rows) == len(methods) <= MOST:
        return rows, ""
    metric = found.headline[0]
    sign = found.metrics[metric].sign or 1
    best: dict[str, tuple[float, Setting]] = {}
    for one in rows:
        mean = found.mean(one, metric)
        value = sign * mean.mean if mean else -math.inf
        if one.method not in best or value > best[one.method][0]:
            best[one.method] = (value, one)
    kept = [one for _, one in best.values()][:MOST]
    some = f"Of the first {MOST} methods" if len(methods) > MOST else "Of each method"
    which = f"{some} the setting with the best {metric} of the test, which flatters it."
    return kept, which if len(rows) > len(methods) else f"The first {MOST} methods."


def _grouped(
    found: Compared, looks: Mapping[str, Look], rows: list[Setting], groups: dict[str, list[str]]
) -> Figure:
    bars = [_bars(found, looks, one, groups) for one in rows]
    spread = any(bar["error_x"]["visible"] for bar in bars)
    says = "; ".join(f"{group}: {', '.join(names)}" for group, names in groups.items())
    layout = {
        "barmode": "group",
        "xaxis": axis(
            "change of the share (0 to 1); to the right is better", zeroline=True, clip=[-1, 1]
        ),
        "yaxis": {"autorange": "reversed", "automargin": True},
        "showlegend": len(rows) > 1,
    }
    note = f"Mean of the metrics of a group ({says}). {WHISKERS if spread else ''}"
    if without := [
        one.label for one, bar in zip(rows, bars, strict=True) if len(bar["y"]) < len(groups)
    ]:
        note += f" Without a bar where a metric of the group is missing: {', '.join(without)}."
    title = f"Change against {found.base}"
    height = 120 + max(46, 20 * len(rows)) * len(groups)
    return Figure(title, bars, layout, note, height)


def group_change(found: Compared, one: Setting, names: list[str]) -> Interval | None:
    """Mean change of some metrics for the better, seed by seed."""
    changes = [(found.metrics[name].sign, found.changes(one, name)) for name in names]
    if not all(change for _, change in changes):
        return None  # a mean of fewer metrics stands beside none of more
    # Of the seeds that all have, or the mean would change with what is missing.
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
        "name": one.label,
        "y": [f"{group} ↑" for group in known],
        "x": [rounded(mean.mean) for mean in known.values()],
        "error_x": _whiskers(list(known.values())),
        "marker": looks[one.method].bar,
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
        "y": [one.label for one in known],
        "x": [rounded(change.mean) for change in known.values()],
        "error_x": _whiskers(list(known.values())),
        "marker": {
            "color": [looks[one.method].colour for one in known],
            "pattern": {"shape": [looks[one.method].pattern for one in known], "solidity": 0.35},
        },
    }
    layout = {
        "xaxis": axis(
            f"change of {metric.label}; to the {'right' if metric.sign > 0 else 'left'} is better",
            zeroline=True,
        ),
        "yaxis": {"autorange": "reversed", "automargin": True},
        "showlegend": False,
    }
    at = f"{found.base} is at {number(before.mean)}" if before else ""
    return Figure(metric.title, [bar], layout, at, height=110 + 24 * len(known))


def _whiskers(means: list[Interval]) -> dict[str, Any]:
    return {
        "type": "data",
        "array": [rounded(mean.half) or 0 for mean in means],
        "color": "@text/0.6",
        "thickness": 1.2,
        "width": 3,
        "visible": any(mean.half for mean in means),
    }
