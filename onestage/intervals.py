"""Means over seeds with Student's interval: the same for studies and for the pages about them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from scipy.special import stdtrit

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean and its two-sided t interval; without bounds where there is one value."""

    mean: float
    low: float
    high: float
    n: int
    sd: float = math.nan


def interval(values: Sequence[float]) -> Interval:
    """Student's interval at 95 %. Equal values give an interval of no width."""
    n = len(values)
    mean = math.fsum(values) / n if n else math.nan
    if n < 2:
        return Interval(mean, math.nan, math.nan, n)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = critical(n - 1) * sd / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n, sd)


@cache
def critical(freedom: int) -> float:
    """t with 95 % of Student's distribution between -t and t."""
    return float(stdtrit(freedom, (1 + LEVEL) / 2))
