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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

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
    choice: float = 0.0
    """A part of the mean's standard error that no more values make smaller: of a choice of settings that
    they all share. It is in the bounds and in `sd`."""

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
    return student(mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1)), n)


def student(mean: float, sd: float, n: int) -> Interval:
    """Student's interval at 95 % of the mean of n values, two or more, of this spread."""
    half = critical(n - 1) * sd / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n, sd)


def weighted(parts: Sequence[tuple[float, float]]) -> Interval:
    """The ratio of sums over (sum, number of units) pairs, with its interval over the pairs.

    A mean over all units whose units come in clusters (tokens of a text, pairs of a prompt): Student's
    interval of the linearised ratio (Cochran 1977, Sampling Techniques, section 6.3). Clusters without
    units are left out.
    """
    parts = [(total, size) for total, size in parts if size]
    n, units = len(parts), math.fsum(size for _, size in parts)
    mean = math.fsum(total for total, _ in parts) / units if n else math.nan
    if n < 2:
        return Interval(mean, math.nan, math.nan, n)
    squares = math.fsum((total - mean * size) ** 2 for total, size in parts)
    return student(mean, math.sqrt(squares / (n - 1)) * n / units, n)


def another(found: Interval, n: int) -> float:
    """How far above `found.mean` the mean of n other values of the same kind may lie: in 95 % of samples
    it does not (the upper end of Student's one-sided prediction interval). NaN of a single value."""
    if found.n < 2 or n < 1:
        return math.nan
    return _quantile(found.n - 1, LEVEL) * found.sd * math.sqrt(1 / found.n + 1 / n)


def critical(freedom: int) -> float:
    """t with 95 % of Student's distribution between -t and t."""
    return _quantile(freedom, (1 + LEVEL) / 2)


@cache
def _quantile(freedom: int, part: float) -> float:
    """t with this part of Student's distribution below it."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, part))


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


class Weighted(NamedTuple):
    """What an item says of a mean in which it counts more than others (one of several questions)."""

    value: float
    weight: float


@dataclass(frozen=True)
class Estimate:
    """A number measured on items, and what each of them adds to its error.

    Miller 2024 (arXiv 2411.00640): items are drawn from all that could be asked, so the error of a mean
    is of that drawing; two models asked the same items differ by less than two errors, because what is
    hard for one is hard for the other. Here the parts of the error are kept by item (linearised, so
    ratios and means of means have them too): a difference has the differences of the parts.
    """

    value: float
    parts: Mapping[str, float] = field(default_factory=dict, repr=False)
    """By item; the standard error is the root of their sum of squares. Empty where it is not known."""
    n: int = 0
    """Items."""

    @property
    def stderr(self) -> float:
        """nan where there is a single item, or the error is not known."""
        if self.n < 2 or not self.parts:
            return math.nan
        return math.sqrt(math.fsum(part * part for part in self.parts.values()))

    @property
    def half(self) -> float:
        """Half the width of the interval at 95 % (Student's)."""
        return critical(self.n - 1) * self.stderr if self.n > 1 else math.nan

    def __sub__(self, other: Estimate) -> Estimate:
        """The difference, paired by item; its error is known where both are."""
        return _combined(self.value - other.value, [(1.0, self), (-1.0, other)])

    def exp(self) -> Estimate:
        """The exponential (a perplexity of a mean loss), by the delta method."""
        value = math.exp(self.value) if self.value < 700 else math.inf
        return Estimate(value, {i: value * part for i, part in self.parts.items()}, self.n)


def estimate(found: Mapping[str, float | Weighted]) -> Estimate:
    """The mean over items, or the ratio of sums where they have weights. For plain numbers the standard
    error is sd / sqrt n, with n - 1 below the sd."""
    pairs = {
        i: one if isinstance(one, Weighted) else Weighted(one, 1.0) for i, one in found.items()
    }
    n, whole = len(pairs), math.fsum(one.weight for one in pairs.values())
    if not whole > 0:
        return Estimate(math.nan, {}, n)
    mean = math.fsum(one.value * one.weight for one in pairs.values()) / whole
    scale = math.sqrt(n / max(1, n - 1)) / whole
    parts = {i: one.weight * (one.value - mean) * scale for i, one in pairs.items()}
    return Estimate(mean, parts if n > 1 else {}, n)  # of one item no error is known


def mean_of(estimates: Sequence[Estimate]) -> Estimate:
    """The plain mean of several numbers, of the same items or of others."""
    share = 1 / len(estimates)
    value = math.fsum(one.value for one in estimates) * share
    return _combined(value, [(share, one) for one in estimates])


def _combined(value: float, terms: Sequence[tuple[float, Estimate]]) -> Estimate:
    ids: Iterable[str] = dict.fromkeys(i for _, one in terms for i in one.parts)
    parts = {i: math.fsum(factor * one.parts.get(i, 0.0) for factor, one in terms) for i in ids}
    known = all(one.parts for _, one in terms)
    return Estimate(value, parts if known else {}, len(parts) or max(one.n for _, one in terms))


def p_above(found: Interval, limit: float) -> float:
    """p of a one-sided t-test: how likely so high a mean is where the true one is at most `limit`."""
    if found.n < 2 or math.isnan(found.sd):
        return math.nan
    if found.sd == 0:
        return 0.0 if found.mean > limit else 1.0
    from scipy.special import stdtr

    return float(stdtr(found.n - 1, (limit - found.mean) / found.sd * math.sqrt(found.n)))


def p_below(found: Interval, limit: float) -> float:
    """p of the other one-sided t-test: of so low a mean where the true one is at least `limit`."""
    return p_above(mirrored(found), -limit)


def mirrored(found: Interval) -> Interval:
    """The interval of the negative."""
    return Interval(-found.mean, -found.high, -found.low, found.n, found.sd)


POWER = 0.8
"""Of a planned study: how often it is to find what there is."""


def seeds_needed(
    distance: float,
    sd: float,
    most: int = 1000,
    alpha: float = 1 - LEVEL,
    choice: float = 0.0,
) -> int | None:
    """Fewest seeds (4 to `most`) with which a two-sided t-test at `alpha` tells a true mean from a limit
    that is `distance` away, in 80 % of studies; None where more are needed. By the noncentral t.

    choice: a part of the standard error that stays, however many seeds there are."""
    if not (distance > 0 and math.isfinite(sd)):
        return None
    if sd == choice == 0:
        return 4
    from scipy.stats import nct

    def power(n: int) -> float:
        error = math.sqrt(sd**2 / n + choice**2)
        return float(nct.sf(_quantile(n - 1, 1 - alpha / 2), n - 1, distance / error))

    low, high = 4, most
    if power(high) < POWER:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle) >= POWER else (middle + 1, high)
    return low


def unseen(n: int) -> float:
    """The largest part of all items that may differ where none of n does: the upper end of the exact
    interval for 0 of n (Clopper and Pearson 1934), some 3.7 / n."""
    return 1 - ((1 - LEVEL) / 2) ** (1 / n) if n else 1.0


def unseen_needed(part: float) -> int:
    """The fewest n for which `unseen` is at most a part, which lies between 0 and 1."""
    return math.ceil(math.log((1 - LEVEL) / 2) / math.log1p(-part))


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
