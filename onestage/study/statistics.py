"""Differences of pairs of runs on the same seeds, and ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy import stats

from onestage.intervals import Interval, interval


def paired(left: Sequence[float], right: Sequence[float]) -> tuple[Interval, float]:
    """The mean of left - right over pairs, with its interval, and the p of a paired t-test."""
    differences = [a - b for a, b in zip(left, right, strict=True)]
    found = interval(differences)
    if found.n < 2:
        return found, math.nan
    if found.sd == 0:
        return found, 1.0 if found.mean == 0 else 0.0
    t = abs(found.mean) / (found.sd / math.sqrt(found.n))
    return found, float(2 * stats.t.sf(t, found.n - 1))


def holm(p: Sequence[float]) -> list[float]:
    """p values adjusted for being several (Holm 1979); those that are not numbers stay so."""
    known = sorted((value, n) for n, value in enumerate(p) if not math.isnan(value))
    found, most = [math.nan] * len(p), 0.0
    for rank, (value, n) in enumerate(known):
        most = max(most, min(1.0, (len(known) - rank) * value))
        found[n] = most
    return found


def rank_slope(values: Sequence[float]) -> float:
    """Kendall's tau-b of a series against its order: 1 rises throughout, -1 falls throughout."""
    if len(set(values)) < 2:
        return 0.0
    return float(stats.kendalltau(range(len(values)), values).statistic)


def rank_correlation(left: Sequence[float], right: Sequence[float]) -> float:
    """Spearman's rho; 0 where one of them does not vary."""
    if len(set(left)) < 2 or len(set(right)) < 2:
        return 0.0
    return float(stats.spearmanr(left, right).statistic)
