"""Training curves: everything a run measured, over its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from onestage.report.calibration import calibration_figure
from onestage.report.cells import Cell, Compared, first_of_each
from onestage.report.figures import Figure, Look, axis, rounded
from onestage.report.markup import Html, el, fold, join
from onestage.report.measured import BENCHMARKS, FAMILIES, REWARD, Place, place_of
from onestage.report.trained import Point, Trained
from onestage.report.units import unit_of

ONE = "one seed of each method"
EVERY = "all drawn runs"
MOST_RUNS = 48
MOST_POINTS = 400


def curves_section(found: Compared, looks: Mapping[str, Look]) -> Html | None:
    """A fold for each family of measurements; the first is open."""
    cells = drawn_cells(found)
    if not cells:
        return None
    views, drawn = views_of(cells), lines_of(cells)
    parts: list[Html] = []
    for family, says in FAMILIES.items():
        lines = drawn.get(family, {})
        figures = [_figure(title, some, views, looks) for title, some in lines.items()]
        if family == REWARD:
            figures = [f for f in [calibration_figure(cells, views, looks), *figures] if f]
        if figures:
            grid = el("div", *(figure.html() for figure in figures), class_="grid")
            summary = f"{family} ({len(figures)} figure{'s' if len(figures) > 1 else ''})"
            parts.append(fold(summary, el("p", says, class_="note"), grid, open_=not parts))
    trained = sum(cell.trained is not None for cell in found.tested)
    left = trained - len(cells)
    more = f" {left} of {trained} runs are not drawn, to keep the page small." if left else ""
    return join([_chooser(views), legend(found, looks, cells), _told(cells, more), *parts])


def drawn_cells(found: Compared) -> list[Cell]:
    """Trained cells, the first of each method first; at most `MOST_RUNS`."""
    cells = [cell for cell in found.trained() if _trained(cell).measured()]
    firsts = first_of_each(cells)
    return (firsts + [cell for cell in cells if cell not in firsts])[:MOST_RUNS]


def views_of(cells: Sequence[Cell]) -> dict[str, list[str]]:
    """Which cells (by name) each choice shows."""
    methods: dict[str, list[str]] = {}
    for cell in cells:
        methods.setdefault(cell.method, []).append(cell.name)
    views = {ONE: [names[0] for names in methods.values()]}
    if len(views[ONE]) < len(cells):
        views[EVERY] = [cell.name for cell in cells]
        views |= {f"{m}: all its runs": names for m, names in methods.items() if len(names) > 1}
    return views


def seen_in(cell: Cell, views: Mapping[str, list[str]]) -> list[str]:
    return [view for view, names in views.items() if cell.name in names]


def _chooser(views: Mapping[str, list[str]]) -> Html | None:
    if len(views) < 2:
        return None
    options = [el("option", name) for name in views]
    return el("label", "show ", el("select", *options, data_views=True), class_="pick")


def legend(found: Compared, looks: Mapping[str, Look], cells: Sequence[Cell]) -> Html:
    """The methods' colours, for all figures that follow."""
    methods = [m for m in found.methods if any(cell.method == m for cell in cells)]
    methods += [m for m in dict.fromkeys(c.method for c in cells) if m not in methods]
    return el(
        "p",
        *(el("span", looks[method].chip, method, class_="method") for method in methods),
        class_="legend",
    )


def _told(cells: Sequence[Cell], more: str) -> Html | None:
    most = max(len(part.lines) for cell in cells for part in _trained(cell).parts)
    if most > MOST_POINTS:
        more += (
            f" Runs have up to {most} lines of metrics; of long curves every n-th point is drawn."
        )
    if any(len(_trained(cell).parts) > 1 for cell in cells):
        more += " Stages stand one after another, their steps added up; a gap in a line parts them."
    return el("p", more, class_="note") if more else None


@dataclass(frozen=True)
class Line:
    """One run's measurement in a figure."""

    cell: Cell
    place: Place
    points: list[Point]


def lines_of(cells: Sequence[Cell]) -> dict[str, dict[str, list[Line]]]:
    """What there is to draw, by family and figure. Losses of different objectives (of a chain's stages,
    too) are never of one figure."""
    found: dict[str, dict[str, list[Line]]] = {}
    for key in dict.fromkeys(key for cell in cells for key in _trained(cell).measured()):
        place = place_of(key)
        for cell in cells if place is not None else ():
            for unit, points in _by_unit(_trained(cell), key).items():
                assert place is not None
                title = f"{place.title}: {unit}" if unit else place.title
                line = Line(cell, _signed(place, _trained(cell), key), points)
                found.setdefault(place.family, {}).setdefault(title, []).append(line)
    return found


def _signed(place: Place, run: Trained, key: str) -> Place:
    """A suite says itself which way is better."""
    told = run.suites().get(key) if place.family == BENCHMARKS else None
    return (
        place if told is None else replace(place, better="lower" if told.get("lower") else "higher")
    )


def _by_unit(run: Trained, key: str) -> dict[str, list[Point]]:
    """The points of a measurement, stages with the same objectives together."""
    pieces: dict[str, list[list[Point]]] = {}
    for part, piece in zip(run.parts, run.pieces(key), strict=True):
        if any(value is not None for _, value in piece):
            pieces.setdefault(unit_of(part, key), []).append(piece)
    return {unit: _joined(some) for unit, some in pieces.items()}


def _figure(
    title: str, lines: Sequence[Line], views: Mapping[str, list[str]], looks: Mapping[str, Look]
) -> Figure:
    traces = [_trace(one, looks[one.cell.method], seen_in(one.cell, views)) for one in lines]
    units = {one.place.pick: one.place.axis for one in lines}
    layout = {"xaxis": axis("step"), "yaxis": axis(lines[0].place.axis), "labels": True}
    more = {"units": units} if len(set(units.values())) > 1 else {}
    return Figure(title, traces, layout, height=270, pick="of", more=more)


def _trace(one: Line, look: Look, views: list[str]) -> dict[str, Any]:
    cell, place = one.cell, one.place
    known = sum(value is not None for _, value in one.points)
    name = cell.setting.label + ("" if cell.name == cell.method else f", seed {cell.seed}")
    return {
        "x": [step for step, _ in one.points],
        "y": [rounded(value) for _, value in one.points],
        "mode": "lines+markers" if known <= 12 else "lines",
        "line": {"color": look.colour, "dash": look.dash, "width": 1.8},
        "marker": {"color": look.colour, "symbol": look.symbol, "size": 6},
        "name": name,
        "views": views,
        **({"pick": place.pick} if place.pick else {}),
    }


def _joined(pieces: Sequence[Sequence[Point]]) -> list[Point]:
    """The points of all stages, with a gap between them."""
    found: list[Point] = []
    for piece in pieces:
        if found and piece:
            # No line is drawn through a point without a value.
            found.append((piece[0][0], None))
        found += thinned(piece)
    return found


def thinned(points: Sequence[Point]) -> list[Point]:
    """Every n-th point, and the last; all where there are few."""
    every = -(-len(points) // MOST_POINTS)
    kept = list(points[::every]) if every > 1 else list(points)
    return kept if not points or kept[-1] == points[-1] else [*kept, points[-1]]


def _trained(cell: Cell) -> Trained:
    assert cell.trained is not None
    return cell.trained
