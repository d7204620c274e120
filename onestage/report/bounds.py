"""What became of bounds on forgetting (docs/forgetting.md): what was measured on the way, against the
bound, with the multiplier that held it; and the certificates of finished runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from onestage.report.cells import Cell, Compared
from onestage.report.figures import Figure, Look, axis, rounded
from onestage.report.markup import Html, el, join, table
from onestage.report.numbers import number
from onestage.report.reading import is_number

HEAD = ("run", "kept", "at most", "before", "after", "change", "95 % interval", "verdict", "price")
KEPT = {
    "kl": "KL divergence on",
    "text": "rise of the loss of",
    "loss": "rise of the held-out loss of",
    "suite": "fall of the headline of",
}
HELD = {
    **{
        "kl": "a pull to the start model",
        "replay": "a term's weight",
        "anchor": "decay to the start",
        "fisher": "decay to the start by Fisher information",
    },
    **{"step": "shorter steps", "nothing": "nothing (only measured)"},
}
"""How a bound was held, in words."""


WAY = {
    "measured": (
        "measured on watched records, and its bound",
        "nats, or a suite's headline (lower is better)",
    ),
    "multiplier": ("multiplier that holds it", "nats of the goal for one of it"),
}
DRAWN = 8
"""Runs in a figure."""


def bounds_section(found: Compared, looks: Mapping[str, Look]) -> Html | None:
    """Over steps, then a row for each bound of each finished run; None where nobody set one."""
    bounded = [cell for cell in found.trained() if _names(cell)]
    drawn = [figure.html() for figure in figures_of(bounded[:DRAWN], looks)]
    grid = el("div", *drawn, class_="grid") if drawn else None
    few = f"The first {DRAWN} of {len(bounded)} runs are drawn." if len(bounded) > DRAWN else ""
    note = el("p", few, class_="note") if grid and few else None
    certified = _certificates(found)
    return join([note, grid, certified]) if grid or certified else None


def figures_of(cells: list[Cell], looks: Mapping[str, Look]) -> Iterator[Figure]:
    """Two for each bound: how much was forgotten over the steps, and what weighed against it."""
    for name in dict.fromkeys(name for cell in cells for name in _names(cell)):
        for what, (title, unit) in WAY.items():
            traces = [trace for cell in cells for trace in _traces(cell, looks, name, what)]
            layout = {"xaxis": axis("step"), "yaxis": axis(unit, zeroline=True), "labels": True}
            if traces:
                yield Figure(f"{name}: {title}", traces, layout, height=270)


def _names(cell: Cell) -> list[str]:
    """Of the bounds that a run measured."""
    keys = cell.trained.measured() if cell.trained else []
    return list(dict.fromkeys(key.split("/")[1] for key in keys if key.startswith("keep/")))


def _traces(
    cell: Cell, looks: Mapping[str, Look], name: str, what: str
) -> Iterator[dict[str, Any]]:
    look, run = looks[cell.method], cell.trained
    points = run.series(f"keep/{name}/{what}") if run else []
    if not points:
        return
    yield {
        "x": [step for step, _ in points],
        "y": [rounded(value) for _, value in points],
        "mode": "lines+markers",
        "line": {"color": look.colour, "dash": look.dash, "width": 1.8},
        "marker": {"color": look.colour, "symbol": look.symbol, "size": 6},
        "name": cell.setting.label,
    }
    limits = run.series(f"keep/{name}/bound") if run and what == "measured" else []
    if limits:
        yield {
            "x": [step for step, _ in limits],
            "y": [rounded(value) for _, value in limits],
            "mode": "lines",
            "line": {"color": "@bad", "dash": "dash", "width": 1.6},
            "name": f"bound of {cell.setting.label}",
        }


def _certificates(found: Compared) -> Html | None:
    rows = [
        [cell.name, *_told(one)]
        for cell in found.cells
        for part in (cell.trained.parts if cell.trained else ())
        for one in part.bounds
    ]
    if not rows:
        return None
    note = (
        "Measured on held-out records that nothing of the run looked at, in nats, or in the unit of a "
        "suite's headline; the interval is over records, paired. Held: all of it keeps the bound; "
        "broken: none of it does. Price: what one nat more would be worth in the weighted loss of the "
        "goals."
    )
    return join([table(HEAD, rows), el("p", note, class_="note")])


def _told(one: Mapping[str, Any]) -> list[str]:
    def of(key: str) -> str:
        value = one.get(key)
        return number(value if is_number(value) else None)

    what, by, relaxed = str(one.get("what", "")), str(one.get("by", "")), one.get("relaxed_to")
    verdict, needed = str(one.get("verdict", "")), one.get("needed")
    verdict += f", {needed:,} records would decide" if is_number(needed) else ""
    return [
        f"{KEPT.get(what, what)} {one.get('name', '')}; held by {HELD.get(by, by)}",
        *map(of, ("at_most", "before", "after", "change")),
        f"{of('low')} to {of('high')}",
        f"{verdict}, relaxed to {number(relaxed)}" if is_number(relaxed) else verdict,
        of("price"),
    ]
