"""The front: each recipe a point between two metrics."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from onestage.report.cells import Compared, Setting
from onestage.report.figures import Figure, Look, rounded
from onestage.report.front import Comparison, FrontError
from onestage.report.markup import Html, el, join, table
from onestage.report.numbers import number, setting


def front_section(
    found: Compared, looks: Mapping[str, Look], gaps: Comparison | FrontError | None
) -> Html | None:
    """The figure, and for runs with the same terms the gaps to the best."""
    figure = front_figure(found, looks)
    parts = [figure.html() if figure else None, _gaps(gaps)]
    return join(parts) if any(parts) else None


def front_figure(found: Compared, looks: Mapping[str, Look]) -> Figure | None:
    """None where there are no two metrics to draw."""
    known = {name for cell in found.tested for name in cell.results if name[:6] != "start/"}
    names = [name for name, metric in found.metrics.items() if metric.sign and name in known]
    if len(names) < 2:
        return None
    told = found.front or ()
    x, y = told if told and set(told) <= set(names) else _two(found, names)
    points = [_point(found, looks, one, names) for one in found.settings()]
    metrics = {name: _told_of(found, name) for name in names}
    return Figure(
        "Each recipe between two metrics",
        [],
        {},
        "Large: mean over seeds with its 95 % interval; faint: single seeds. The dotted line joins the "
        "recipes that no other one beats in both. Touch a point for its settings.",
        height=460,
        kind="front",
        more={"points": [p for p in points if p["means"]], "metrics": metrics, "x": x, "y": y},
    )


def _told_of(found: Compared, name: str) -> dict[str, Any]:
    metric = found.metrics[name]
    return {"better": metric.better, "label": metric.label, "share": found.share(name)}


def _two(found: Compared, names: list[str]) -> tuple[str, str]:
    """The first two metrics that most settings have, of two groups if that can be: headline ones before
    others."""
    order = [n for n in found.headline if n in names] + [
        n for n in names if n not in found.headline
    ]
    have = {name: {one for one in found.settings() if found.values(one, name)} for name in names}
    group = {name: found.metrics[name].group for name in names}
    return max(
        combinations(order, 2),
        key=lambda two: (len(have[two[0]] & have[two[1]]), group[two[0]] != group[two[1]]),
    )


def _point(
    found: Compared, looks: Mapping[str, Look], one: Setting, names: list[str]
) -> dict[str, Any]:
    look, means = looks[one.method], {}
    for name in names:
        mean = found.mean(one, name)
        if mean is not None:
            means[name] = [rounded(mean.mean), rounded(mean.half)]
    seeds = [
        {
            "seed": cell.seed,
            "values": {n: rounded(cell.results[n]) for n in names if n in cell.results},
            "choice": _choice(cell.choice),
        }
        for cell in found.of(one)
        if cell.results
    ]
    choices = {seed["choice"] for seed in seeds}
    return {
        "label": one.label,
        "method": one.method,
        "choice": choices.pop() if len(choices) == 1 else "settings differ by seed",
        "colour": look.colour,
        "symbol": look.symbol,
        "means": means,
        "seeds": seeds if len(seeds) > 1 else [],
    }


def _choice(choice: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {setting(value)}" for key, value in choice.items())


def _gaps(gaps: Comparison | FrontError | None) -> Html | None:
    """As `onestage front` prints it."""
    if isinstance(gaps, FrontError):
        return el("p", f"Gaps to the best losses are not told: {gaps}.", class_="note")
    if gaps is None or not gaps.runs:
        return None
    rows = [
        [
            one.label,
            *(number(one.gaps.get(term)) for term in gaps.optimum),
            number(one.distance),
            f"{one.run.tokens:,}",
        ]
        for one in gaps.nearest_first()
    ]
    best = ", ".join(f"{term} {number(value)}" for term, value in gaps.optimum.items())
    lacking = "; ".join(f"{one.name} {one.problem}" for one in gaps.broken)
    return join(
        [
            el("h3", "Gaps to the best held-out loss of each term"),
            table(("run", *gaps.optimum, "distance from the ideal", "tokens"), rows),
            el(
                "p",
                f"* on the front; f*: {best} (a gap below 0 is better than this f*)"
                + (f". Left out: {lacking}" if lacking else ""),
                class_="note",
            ),
        ]
    )
