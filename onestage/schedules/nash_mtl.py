"""Nash-MTL: the terms bargain about the direction of a step.

    maximise sum_i w_i log <g_i, d> over directions d of a given length:
    d = sum_i a_i g_i  with  sum_j <g_i, g_j> a_j = w_i / a_i

Navon et al. 2022 (arXiv 2202.01017), theorem 3.2, with the given weights as bargaining powers (the paper
has them equal). Each term's gain counts in proportion, so multiplying a loss by a constant changes
nothing. The equations are those of the least of a' G a / 2 - sum_i w_i log a_i, which is strictly
convex, so it is found by Newton's method; the authors go through a sequence of convex programs. The
direction is as long as the gradients are: |d|^2 is the length of G.

As with `surgery`, each term goes backward by itself, and a step holds the gradients of all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from onestage.schedules import OWN, Schedule, Slopes
from onestage.schedules._few import Row, met, solve, times

RIDGE = 1e-9
"""Added to the diagonal, against its greatest: exactly opposed gradients have no bargain."""


@dataclass
class NashMTL(Schedule):
    @property
    def combines(self) -> str:
        return OWN

    def weigh(self, step: int) -> dict[str, float]:
        return self.share

    def combine(self, slopes: Slopes) -> dict[str, float]:
        terms, given, rows = met(self.share, slopes.inner)
        size = math.sqrt(math.fsum(x * x for row in rows for x in row))
        if not size > 0:
            return dict.fromkeys(terms, 1.0)
        found = bargain([[x / size for x in row] for row in rows], given)
        return {term: a / w for term, a, w in zip(terms, found, given, strict=True)}


def bargain(rows: list[Row], given: Row) -> Row:
    """a, of inner products (m, m) of length 1 and bargaining powers (m)."""
    ridge = RIDGE * max(row[n] for n, row in enumerate(rows))
    rows = [[x + ridge * (n == k) for k, x in enumerate(row)] for n, row in enumerate(rows)]
    found = [math.sqrt(w / row[n]) for n, (row, w) in enumerate(zip(rows, given, strict=True))]

    def value(a: Row) -> float:
        if min(a) <= 0:
            return math.inf
        square = sum(x * y for x, y in zip(a, times(rows, a), strict=True))
        return square / 2 - sum(w * math.log(x) for w, x in zip(given, a, strict=True))

    for _ in range(100):
        pull = times(rows, found)
        slope = [p - w / a for p, w, a in zip(pull, given, found, strict=True)]
        curve = [
            [x + (given[n] / found[n] ** 2) * (n == k) for k, x in enumerate(row)]
            for n, row in enumerate(rows)
        ]
        step = solve(curve, slope)
        if step is None or max(map(abs, slope)) < 1e-12:
            break
        part, now = 1.0, value(found)
        while part > 1e-9 and value(moved(found, step, part)) > now:
            part /= 2
        if part <= 1e-9:
            break
        found = moved(found, step, part)
    return found


def moved(found: Row, step: Row, part: float) -> Row:
    """Along a step, by a part of it."""
    return [a - part * s for a, s in zip(found, step, strict=True)]
