"""Training curves: everything a run measured, over its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onestage.report.calibration import calibration_figure
from onestage.report.cells import Cell, Compared, first_of_each
from onestage.report.figures import Figure, Look, axis, plain, rounded
from onestage.report.markup import Html, el, fold, join
from onestage.report.measured import FAMILIES, REWARD, Place, place_of
from onestage.report.trained import Point, Trained

ONE = "one seed of each method"
EVERY = "all drawn runs"
MOST_RUNS = 48
MOST_POINTS = 400


def curves_section(found: Compared, looks: Mapping[str, Look]) -> Html | None:
    """A fold for each family of measurements; the first is open."""
    cells = drawn_cells(found)
    if not cells:
        return None
    views = views_of(cells)
    families: dict[str, dict[str, list[tuple[str, Place]]]] = {name: {} for name in FAMILIES}
    keys = dict.fromkeys(key for cell in cells for key in _trained(cell).measured())
    for key in keys:
        place = place_of(key)
        if place is not None:
            families[place.family].setdefault(place.title, []).append((key, place))
    parts: list[Html] = []
    for family, says in FAMILIES.items():
        figures = [_figure(cells, views, looks, places) for places in families[family].values()]
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
    return [plain(view) for view, names in views.items() if cell.name in names]


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


def _figure(
    cells: Sequence[Cell],
    views: Mapping[str, list[str]],
    looks: Mapping[str, Look],
    places: Sequence[tuple[str, Place]],
) -> Figure:
    place, traces = places[0][1], []
    for key, one in places:
        for cell in cells:
            points = _joined(_trained(cell).pieces(key))
            if any(value is not None for _, value in points):
                traces.append(_trace(cell, points, looks[cell.method], one, seen_in(cell, views)))
    layout = {"xaxis": axis("step"), "yaxis": axis(place.unit), "showlegend": False}
    return Figure(place.title, traces, layout, height=270, pick="of")


def _trace(
    cell: Cell, points: Sequence[Point], look: Look, place: Place, views: list[str]
) -> dict[str, Any]:
    known = sum(value is not None for _, value in points)
    name = cell.setting.label + ("" if cell.name == cell.method else f", seed {cell.seed}")
    return {
        "x": [step for step, _ in points],
        "y": [rounded(value) for _, value in points],
        "mode": "lines+markers" if known <= 12 else "lines",
        "line": {"color": look.colour, "dash": look.dash, "width": 1.8},
        "marker": {"color": look.colour, "symbol": look.symbol, "size": 6},
        "name": plain(name),
        "hovertemplate": "step %{x}: %{y:.4g}",
        "views": views,
        **({"pick": plain(place.pick)} if place.pick else {}),
    }


def _joined(pieces: Sequence[Sequence[Point]]) -> list[Point]:
    """The points of all stages, with a gap between them."""
    found: list[Point] = []
    for piece in pieces:
        if found and piece:
            # plotly.js draws no line through a point without a value.
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
