"""Arithmetic on finished numbers: how certain they are, and what they trade away.

Means over seeds with Student's interval, differences of pairs of runs on the same seeds, and ranks; for
studies and for the pages about them. And the trade-off between objectives,

    gap_i = f_i - f_i*          normalised: (f_i - f_i*) / (f_i(start) - f_i*)
    ideal distance = sqrt(sum_i max(gap_i, 0)^2)

Fernando et al. 2024 (arXiv 2410.15483) report raw gaps, whose scales differ (a sum of log-probabilities
beside a mean over tokens; xright.md T14): the normalised form is 1 at the start and 0 at the best.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

LEVEL = 0.95
"""Of all intervals."""


def at_most(value: float, limit: float) -> bool:
    """Whether a measured number is finite and at most `limit`. The one comparison for bounds that must
    hold: NaN is below nothing and above nothing, so either plain one may let it pass."""
    return math.isfinite(value) and value <= limit


@dataclass(frozen=True)
class Interval:
    """A mean and its two-sided t interval; bounds and `sd` are nan where there is one value."""

    mean: float
    low: float
    high: float
    n: int
    sd: float = math.nan

    @property
    def half(self) -> float | None:
        """Half its width; None for a single value, which has no interval."""
        return self.high - self.mean if self.n > 1 else None


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
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + LEVEL) / 2))


def paired(left: Sequence[float], right: Sequence[float]) -> tuple[Interval, float]:
    """The mean of left - right over pairs, with its interval, and the p of a paired t-test."""
    differences = [a - b for a, b in zip(left, right, strict=True)]
    found = interval(differences)
    if found.n < 2:
        return found, math.nan
    if found.sd == 0:  # t would be 0 / 0 or infinite
        return found, 1.0 if found.mean == 0 else 0.0
    from scipy import stats

    t = abs(found.mean) / (found.sd / math.sqrt(found.n))
    return found, float(2 * stats.t.sf(t, found.n - 1))


def holm(p: Sequence[float]) -> list[float]:
    """p values adjusted for being several (Holm 1979); those that are not numbers stay so."""
    known = sorted((value, n) for n, value in enumerate(p) if not math.isnan(value))
    found, most = [math.nan] * len(p), 0.0
    for rank, (value, n) in enumerate(known):
        # Not below that of a smaller p, so that the adjusted ones keep the order.
        most = max(most, min(1.0, (len(known) - rank) * value))
        found[n] = most
    return found


def rank_slope(values: Sequence[float]) -> float:
    """Kendall's tau-b of a series against its order: 1 rises throughout, -1 falls throughout."""
    if len(set(values)) < 2:
        return 0.0
    from scipy import stats

    return float(stats.kendalltau(range(len(values)), values).statistic)


def rank_correlation(left: Sequence[float], right: Sequence[float]) -> float:
    """Spearman's rho; 0 where one of them does not vary."""
    if len(set(left)) < 2 or len(set(right)) < 2:
        return 0.0
    from scipy import stats

    return float(stats.spearmanr(left, right).statistic)


def gaps(losses: Mapping[str, float], optimum: Mapping[str, float]) -> dict[str, float]:
    """Raw optimality gap of every term whose f* is known."""
    return {term: losses[term] - best for term, best in optimum.items() if term in losses}


def normalised(
    losses: Mapping[str, float], optimum: Mapping[str, float], start: Mapping[str, float]
) -> dict[str, float]:
    """Gaps as parts of the gap at the start; terms that started at their best are left out."""
    whole = gaps(start, optimum)
    return {
        term: gap / whole[term]
        for term, gap in gaps(losses, optimum).items()
        if whole.get(term, 0.0) > 0
    }


def ideal_distance(gap: Mapping[str, float]) -> float:
    """Euclidean distance from the point where every term is at its best.

    A term below its f* (which then was no optimum) is no distance away.
    """
    return math.sqrt(sum(max(value, 0.0) ** 2 for value in gap.values()))


def front(points: Sequence[Sequence[float]]) -> list[int]:
    """Numbers of the points that no other point beats in one loss without losing in another."""
    return [
        number
        for number, point in enumerate(points)
        if not any(_dominates(other, point) for other in points)
    ]


def _dominates(left: Sequence[float], right: Sequence[float]) -> bool:
    no_worse = all(a <= b for a, b in zip(left, right, strict=True))
    return no_worse and any(a < b for a, b in zip(left, right, strict=True))


def hypervolume(points: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """Volume between the front of the points (losses, lower is better) and a reference point.

    Points that are not below the reference in every loss add nothing. By slicing along the last loss
    (HSO; While et al. 2006), exact for any number of losses.
    """
    size = len(reference)
    if any(len(point) != size for point in points):
        raise ValueError(f"hypervolume: every point needs {size} losses, as the reference has")
    inside = [
        tuple(point)
        for point in points
        if all(a < b for a, b in zip(point, reference, strict=True))
    ]
    if not inside:
        return 0.0
    if size == 1:
        return reference[0] - min(point[0] for point in inside)
    inside.sort(key=lambda point: point[-1])
    ends = [*(point[-1] for point in inside[1:]), reference[-1]]
    volume, slab = 0.0, []
    for point, end in zip(inside, ends, strict=True):
        slab.append(point[:-1])
        if end > point[-1]:
            volume += hypervolume(slab, reference[:-1]) * (end - point[-1])
    return volume
