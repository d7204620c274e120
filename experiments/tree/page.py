"""The tree bench's figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.figures import figure
from experiments.tables import Table
from experiments.tree.problem import Floats

COLOURS = {
    "no hint": "#3b3b3b",
    "RFT": "#3b3b3b",
    "uniform": "#1f6fb4",
    "R3": "#1f6fb4",
    "cosine": "#7b3fa0",
    "UFT": "#c9601a",
    "UFT .001": "#c9601a",
}


def draw(file: Path, theory: Table, curves: dict[str, dict[str, Floats]]) -> None:
    """Leaves by depth, and pass@1 during training on toys B and C."""
    with figure(file, 10.2, 3.4) as drawn:
        panels = drawn.subplots(1, 3)
        _leaves(panels[0], theory)
        _curves(panels[1], "Toy B: GRPO, H = 8", curves["deep"])
        _curves(panels[2], "Toy C: GRPO, H = 5, b = 4", curves["unknown"])


def _leaves(panel: Any, theory: Table) -> None:
    depths = [row[0] for row in theory.rows]
    panel.plot(depths, [row[1] for row in theory.rows], ":", color="#999999", label="B^H / 4")
    for column, name in enumerate(theory.columns[2:5], start=2):
        leaves = [row[column] for row in theory.rows]
        panel.plot(depths, leaves, marker="o", markersize=4, color=COLOURS[name], label=name)
    panel.set_yscale("log")
    panel.set_xlabel("H")
    panel.set_title("Toy A: leaves until pass@1 is 1/2", fontsize=10)
    panel.legend(fontsize=7)


def _curves(panel: Any, title: str, runs: dict[str, Floats]) -> None:
    """Each seed thin, the mean over all seeds thick; every fifth step."""
    for name, passing_TS in runs.items():
        steps, shown = range(0, len(passing_TS), 5), passing_TS[::5]
        panel.plot(steps, shown[:, :6], color=COLOURS[name], linewidth=0.4, alpha=0.5)
        panel.plot(steps, shown.mean(1), color=COLOURS[name], linewidth=1.8, label=name)
    panel.axvline(300, color="#999999", linewidth=0.8, linestyle=":")
    panel.set_ylim(-0.03, 1.03)
    panel.set_xlabel("step (cosine hints end at 300)")
    panel.set_title(title, fontsize=10)
    panel.legend(fontsize=7)
