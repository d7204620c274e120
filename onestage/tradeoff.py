"""The trade-off between objectives, as numbers. Arithmetic only.

    gap_i = f_i - f_i*          normalised: (f_i - f_i*) / (f_i(start) - f_i*)
    ideal distance = sqrt(sum_i max(gap_i, 0)^2)

Fernando et al. 2024 (arXiv 2410.15483) report raw gaps, whose scales differ (a sum of log-probabilities
beside a mean over tokens; xright.md T14): the normalised form is 1 at the start and 0 at the best.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


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
