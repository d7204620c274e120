"""Numbers as people read them, and the mean of what may be nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

from onestage.stats import Interval, interval

UNKNOWN = "\u2013"
"""What stands for a number that there is none of."""


def mean_of(values: Sequence[float]) -> Interval | None:
    """Mean with its t interval; None of nothing."""
    return interval(values) if values else None


def number(value: float | None) -> str:
    """Three decimals for ordinary sizes, three digits for others."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    size = abs(value)
    if value == 0:
        return "0"
    if size < 0.001 or size >= 1e6:
        return f"{value:.2e}"
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 10 and value == int(value):
        return f"{value:.0f}"
    return f"{value:.3f}" if size < 10 else f"{value:.1f}"


def setting(value: object) -> str:
    """A value of a recipe, short."""
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def duration(seconds: float | None) -> str:
    if seconds is None:
        return UNKNOWN
    if seconds < 90:
        return f"{seconds:.1f} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"
