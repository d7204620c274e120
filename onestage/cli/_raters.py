"""The table of raters: who rated how much, and how each differs from the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from onestage.data.annotators import Raters
    from onestage.data.calibration import Calibration

SHOWN = 20
LOW = 0.667
"""Krippendorff: below this alpha no conclusion stands."""


def show_raters(console: Console, raters: Raters, calibration: Calibration | None = None) -> None:
    """Print the raters, those who differ most first, how far all agree, and what was taken off."""
    found = raters.table()
    table = Table(title="Raters", title_justify="left")
    names = ["rater", "ratings", "shared with others", "bias", "agreement"]
    for name in names + (["taken off", "scale", "noise"] if calibration else []):
        table.add_column(name, justify="left" if name == "rater" else "right")
    for one in found[:SHOWN]:
        bias = "" if one.bias is None else f"{one.bias:+.3f}"
        agreement = "" if one.agreement is None else f"{one.agreement:.3f}"
        habits = _habits(calibration, one.name) if calibration else []
        table.add_row(
            escape(one.name), f"{one.ratings:,}", f"{one.shared:,}", bias, agreement, *habits
        )
    console.print(table)
    if len(found) > SHOWN:
        console.print(f"and {len(found) - SHOWN:,} more raters")
    alpha = raters.alpha()
    told = "nothing can be said of their agreement" if alpha is None else f"alpha {alpha:.3f}"
    if alpha is not None and alpha < LOW:
        told += f" (below {LOW}, little is known from them)"
    console.print(
        f"{raters.ratings:,} ratings of {len(raters):,} answers by {len(found):,} raters; "
        f"Krippendorff's {told}; {raters.contradictions():,} contradict themselves",
        highlight=False,
        soft_wrap=True,
    )


def _habits(calibration: Calibration, name: str) -> list[str]:
    one = calibration.habits.get(name)
    return [f"{one.bias:+.3f}", f"{one.scale:.2f}", f"{one.noise:.3f}"] if one else ["", "", ""]
