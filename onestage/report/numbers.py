"""Numbers for people, and means with their 95 % interval over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from onestage.stats import interval

UNKNOWN = "\u2013"
"""What stands for a number that there is none of."""


@dataclass(frozen=True)
class Mean:
    value: float
    half: float | None
    """Half the width of the interval; None for a single value, which has none."""
    n: int

    @property
    def low(self) -> float:
        return self.value - (self.half or 0.0)

    @property
    def high(self) -> float:
        return self.value + (self.half or 0.0)


def mean_of(values: Sequence[float]) -> Mean | None:
    """Mean with its t interval; None of nothing."""
    if not values:
        return None
    found = interval(values)
    return Mean(found.mean, None if found.n == 1 else found.high - found.mean, found.n)


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
