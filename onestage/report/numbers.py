"""Numbers for people, and means with their 95 % interval over seeds.

Student's distribution for whole degrees of freedom in closed form (Abramowitz and Stegun 26.7.3-4).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

LEVEL = 0.95
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
    n = len(values)
    if not n:
        return None
    mean = math.fsum(values) / n
    if n == 1:
        return Mean(mean, None, 1)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    return Mean(mean, critical(n - 1) * deviation / math.sqrt(n), n)


@cache
def critical(freedom: int) -> float:
    """t with 95 % of Student's distribution between -t and t."""
    low, high = 0.0, 20.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (low, middle) if _within(middle, freedom) > LEVEL else (middle, high)
    return (low + high) / 2


def _within(t: float, freedom: int) -> float:
    """Probability of |T| < t."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for k in range(3 if odd else 2, freedom + 1, 2):
        total += term
        term *= (k - 1) / k * cosine**2
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


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
