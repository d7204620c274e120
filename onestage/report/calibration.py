"""Implicit reward against given score.

Evaluations measure the mean implicit reward of responses by their given score
(`implicit_reward_at_0.3`: those whose score rounds to 0.3). For the regression of UFT and UNA without an
offset the aim is score = sigma(implicit reward): the dashed line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from onestage.report.cells import Cell
from onestage.report.figures import Figure, Look, axis, plain, rounded
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
                    "y": [rounded(reward) for _, reward in points],
                    "mode": "lines+markers",
                    "line": {"color": look.colour, "dash": look.dash, "width": 2},
                    "marker": {"color": look.colour, "symbol": look.symbol, "size": 8},
                    "name": plain(cell.setting.label),
                    "hovertemplate": "score %{x}: implicit reward %{y:.3g}",
                    "pick": plain(place),
                    "views": [plain(view) for view, names in views.items() if cell.name in names],
                }
            )
    if not traces:
        return None
    scores = [n / 50 for n in range(2, 49)]
    aim = {
        "x": scores,
        "y": [rounded(math.log(s / (1 - s))) for s in scores],
        "mode": "lines",
        "line": {"color": "@text/0.5", "dash": "dash", "width": 1},
        "name": "sigma(reward) = score",
        "hoverinfo": "skip",
    }
    layout = {
        "xaxis": axis("given score", range=[-0.05, 1.05]),
        "yaxis": axis("mean implicit reward"),
        "showlegend": False,
    }
    note = (
        "Held-out responses by their given score, at the last evaluation. Rising is right; the dashed "
        "line is where sigma(implicit reward) = score, the aim of UFT and UNA without an offset."
    )
    return Figure("Implicit reward against given score", [*traces, aim], layout, note, 320, "of")


def calibration(cell: Cell) -> dict[str, list[tuple[float, float]]]:
    """(given score, mean implicit reward) of a run's last evaluation, by stream and kind."""
    if cell.trained is None:
        return {}
    for part in reversed(cell.trained.parts):
        for line in reversed(part.lines):
            found: dict[str, list[tuple[float, float]]] = {}
            for key, value in line.items():
                match = AT.fullmatch(key)
                if match and is_number(value):
                    points = found.setdefault(match["place"], [])
                    points.append((float(match["score"]), float(value)))
            if found:
                return {place: sorted(points) for place, points in found.items()}
    return {}
