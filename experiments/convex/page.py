"""The convex bench's figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.convex import problem as convex
from experiments.convex.problem import Floats
from experiments.figures import figure
from experiments.tables import Table

COLOURS = {"dpo": "#1f6fb4", "sft": "#c9601a", "line": "#3b3b3b", "other": "#7b3fa0"}
VIEW = ((-2.2, 2.2), (-0.8, 1.7))
"""The part of Theta that the figure shows."""


def draw(file: Path, paths: dict[str, Floats], over_time: Table) -> None:
    """Trajectories over the contours of both losses, and the gaps as T grows."""
    with figure(file, 9.6, 7.0) as drawn:
        panels = drawn.subplots(2, 2).ravel()
        _trajectories(
            panels[0],
            "Sequential: ends at the last stage's optimum",
            [
                ("DPO then SFT", paths["dpo first"], "sft"),
                ("SFT then DPO", paths["sft first"], "dpo"),
            ],
        )
        _trajectories(
            panels[1], "ALRIGHT: ends at Mix's optimum", [("ALRIGHT", paths["alright"], "line")]
        )
        _trajectories(
            panels[2],
            "MAXRIGHT: the batch that decides",
            [
                ("same batch, size 1", paths["same batch"], "other"),
                ("independent batch, size 1", paths["independent"], "line"),
            ],
        )
        _gaps(panels[3], over_time)


def _trajectories(panel: Any, title: str, runs: Sequence[tuple[str, Floats, str]]) -> None:
    """The first seed thin, the mean over all seeds thick."""
    _landscape(panel)
    for label, path_NSD, colour in runs:
        mean_ND = path_NSD.mean(1)
        first, mean = path_NSD[:, 0][::2], mean_ND[::2]
        panel.plot(*first.T, color=COLOURS[colour], linewidth=0.5, alpha=0.55)
        panel.plot(*mean.T, color=COLOURS[colour], linewidth=2, label=label)
        panel.plot(*mean_ND[-1], "o", color=COLOURS[colour], markersize=5)
    panel.set_title(title, fontsize=10)
    panel.legend(loc="lower right", fontsize=7, framealpha=0.9)


def _landscape(panel: Any) -> None:
    problem = convex.construction_b()
    x, y = (np.linspace(*side, 60) for side in VIEW)
    points = np.stack(np.meshgrid(x, y), axis=-1)
    for name, gap in zip(("dpo", "sft"), problem.gaps(points), strict=True):
        levels = [0.01, 0.04, 0.1, 0.2, 0.35, 0.6, 0.9]
        panel.contour(x, y, gap, levels, colors=COLOURS[name], linewidths=0.6, alpha=0.45)
    marks = {
        "DPO optimum": (problem.argmin(1.0), "*", COLOURS["dpo"]),
        "SFT optimum": (problem.argmin(0.0), "*", COLOURS["sft"]),
        "Mix optimum": (problem.argmin(0.5), "D", "#2c8a4b"),
        "Chebyshev optimum": (problem.chebyshev(0.5)[0], "X", "#c2255c"),
    }
    for label, (point, marker, colour) in marks.items():
        size = 13 if marker == "*" else 8
        panel.plot(
            *point,
            marker,
            color=colour,
            markersize=size,
            markeredgecolor="white",
            label=label,
            linestyle="none",
            zorder=5,
        )
    panel.set_xlim(*VIEW[0])
    panel.set_ylim(*VIEW[1])
    panel.set_xlabel(r"theta 1")
    panel.set_ylabel(r"theta 2")


def _gaps(panel: Any, over_time: Table) -> None:
    names = list(dict.fromkeys(row[1] for row in over_time.rows))
    colours = [COLOURS["sft"], COLOURS["dpo"], COLOURS["line"], COLOURS["other"]]
    for name, colour in zip(names, colours, strict=True):
        steps, gap, error = (
            np.array([row[column] for row in over_time.rows if row[1] == name])
            for column in (0, 2, 3)
        )
        panel.errorbar(steps, gap, error, color=colour, marker="o", markersize=4, label=name)
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlabel("T")
    panel.set_title("Gap of F at lambda = .5", fontsize=10)
    panel.legend(fontsize=7)
