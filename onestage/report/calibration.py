"""Implicit reward against given score.

Evaluations measure the mean implicit reward of responses by their given score
(`implicit_reward_at_0.3`: those whose score rounds to 0.3). For the regression of UFT and UNA without an
offset the aim is score = sigma(implicit reward): the diagonal.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from onestage.report.cells import Cell
from onestage.report.figures import Figure, Look, axis, rounded
from onestage.report.reading import is_number

AT = re.compile(r"eval/(?P<place>.+)/implicit_reward_at_(?P<score>\d(\.\d+)?)")


def calibration_figure(
    cells: Sequence[Cell], views: Mapping[str, list[str]], looks: Mapping[str, Look]
) -> Figure | None:
    """One line for each run, from its last evaluation; None where no evaluation had scores."""
    traces: list[dict[str, Any]] = []
    for cell in cells:
        for place, points in calibration(cell).items():
            look = looks[cell.method]
            traces.append(
                {
                    "x": [score for score, _ in points],
                    "y": [rounded((1 + math.tanh(reward / 2)) / 2) for _, reward in points],
                    "text": [f"(mean implicit reward {reward:.3g})" for _, reward in points],
                    "mode": "lines+markers",
                    "line": {"color": look.colour, "dash": look.dash, "width": 2},
                    "marker": {"color": look.colour, "symbol": look.symbol, "size": 8},
                    "name": cell.setting.label,
                    "pick": place,
                    "views": [view for view, names in views.items() if cell.name in names],
                }
            )
    if not traces:
        return None
    aim = {
        "x": [0, 1],
        "y": [0, 1],
        "mode": "lines",
        "line": {"color": "@text/0.5", "dash": "dash", "width": 1},
        "name": "implicit = given",
        "hoverinfo": "skip",
    }
    layout = {
        "xaxis": axis("given score", range=[-0.03, 1.03]),
        "yaxis": axis("implicit score: sigma(mean implicit reward)", range=[-0.03, 1.03]),
        "labels": True,
    }
    note = (
        "Held-out responses by their given score, at the last evaluation. Rising is right; a model that "
        "has not moved is flat at 1/2; on the dashed line both scores are equal, the aim of "
        "UFT and UNA without an offset."
    )
    return Figure("Implicit reward against given score", [*traces, aim], layout, note, 320, "of")


def calibration(cell: Cell) -> dict[str, list[tuple[float, float]]]:
    """(given score, mean implicit reward) of the last evaluation of the model that a run left, by stream
    and kind; what an earlier stage measured is of another model."""
    for line in reversed(cell.trained.of_its_end() if cell.trained else []):
        found: dict[str, list[tuple[float, float]]] = {}
        for key, value in line.items():
            match = AT.fullmatch(key)
            if match and is_number(value):
                points = found.setdefault(match["place"], [])
                points.append((float(match["score"]), float(value)))
        if found:
            return {place: sorted(points) for place, points in found.items()}
    return {}
