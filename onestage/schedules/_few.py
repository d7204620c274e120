"""Arithmetic with a few terms: what schedules need that combine gradients, without a library.

Legend: m terms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from onestage.schedules import active

Row = list[float]
GOLDEN = (math.sqrt(5) - 1) / 2


def met(
    share: Mapping[str, float], inner: Mapping[str, Mapping[str, float]]
) -> tuple[list[str], Row, list[Row]]:
    """The terms of positive weight that a step has gradients of, their weights (m), and the gradients'
    inner products (m, m)."""
    terms = [term for term in active(share) if term in inner]
    return (
        terms,
        [share[term] for term in terms],
        [[inner[one][other] for other in terms] for one in terms],
    )


def times(rows: Sequence[Row], column: Sequence[float]) -> Row:
    """A matrix times a column."""
    return [math.fsum(a * b for a, b in zip(row, column, strict=True)) for row in rows]


def length(rows: Sequence[Row], column: Sequence[float]) -> float:
    """Of a combination of gradients, from their inner products."""
    square = math.fsum(a * b for a, b in zip(column, times(rows, column), strict=True))
    return math.sqrt(max(0.0, square))


def solve(rows: Sequence[Row], right: Sequence[float]) -> Row | None:
    """The solution of m equations, by elimination; None where they have none or many."""
    size, whole = len(right), [[*row, r] for row, r in zip(rows, right, strict=True)]
    scale = max((abs(x) for row in rows for x in row), default=0.0)
    for at in range(size):
        best = max(range(at, size), key=lambda n: abs(whole[n][at]))
        if abs(whole[best][at]) <= 1e-13 * scale or not math.isfinite(whole[best][at]):
            return None
        whole[at], whole[best] = whole[best], whole[at]
        for other in range(size):
            part = whole[other][at] / whole[at][at] if other != at else 0.0
            if part:
                whole[other] = [a - part * b for a, b in zip(whole[other], whole[at], strict=True)]
    return [row[size] / row[at] for at, row in enumerate(whole)]


def least(value: Callable[[Row], float], size: int) -> Row:
    """Where a convex function of weights (m, at least 0, adding up to 1) is least.

    Weight is moved between two at a time, by the golden section, until that gains nothing.
    """
    found, now = [1 / size] * size, value([1 / size] * size)
    for _ in range(100):
        before = now
        for one in range(size):
            for other in range(one):
                found = _between(value, found, one, other)
        now = value(found)
        if before - now <= 1e-12 * (abs(now) + 1e-300):
            break
    return found


def _between(value: Callable[[Row], float], found: Row, one: int, other: int) -> Row:
    """The best way of dealing out what two weights have together."""
    both = found[one] + found[other]

    def at(part: float) -> Row:
        moved = list(found)
        moved[one], moved[other] = part, both - part
        return moved

    low, high = 0.0, both
    for _ in range(80):
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        low, high = (low, right) if value(at(left)) <= value(at(right)) else (left, high)
    # The ends are tried themselves: what no weight is on is left out altogether.
    tries = [at((low + high) / 2), at(0.0), at(both)]
    return min(tries, key=value)
