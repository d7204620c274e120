"""EPO: to the point of the front where the weighted losses are equal, and along the front to it.

    D_i = f_i - f_i*,   q_i = w_i D_i / sum_j w_j D_j,   mu = sum_i q_i log(m q_i)
    a_i = w_i (log(m q_i) - mu)

Mahapatra and Rajan 2020 (ICML, "Multi-task learning with user preferences"). Where the weighted losses
are not equal yet (mu > tolerance), the step is the combination of gradients, of all with weights that
add up to 1, that brings most of them nearest to it: it maximises <d, sum_i a_i g_i>, lets the worst one
fall, and no other rise more than the balance asks. Where they are equal, it lets all fall together. Both
are linear programs in as many numbers as there are terms.

MAXRIGHT goes to the same point by single terms. Losses are running means of what training shows, and
stand above f*, which is 0 where it is not told. As with `surgery`, each term goes backward by itself,
and a step holds the gradients of all. Default tolerance 1e-4, as in the authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from onestage.schedules import OWN, Slopes
from onestage.schedules._balancing import Balancing
from onestage.schedules._few import Row, met, times


@dataclass
class EPO(Balancing):
    tolerance: float = 1e-4
    """Of mu: below it the weighted losses count as equal."""
    ema_rate: float = 0.1
    """How much a loss counts against those before; 1 replaces them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.tolerance > 0 and 0 < self.ema_rate <= 1):
            raise ValueError(
                f"epo: needs tolerance > 0 and ema_rate in (0, 1], got {self.tolerance}, {self.ema_rate}"
            )

    @property
    def combines(self) -> str:
        return OWN

    def weigh(self, step: int) -> dict[str, float]:
        return self.share

    def observe(self, step: int, losses: Mapping[str, float]) -> None:
        for term, value in self.taken_in(losses).items():
            before = self.above.get(term, value)
            self.above[term] = before + self.ema_rate * (value - before)

    def combine(self, slopes: Slopes) -> dict[str, float]:
        terms, given, rows = met(self.share, slopes.inner)
        if len(terms) < 2 or not all(term in self.above for term in terms):
            return dict.fromkeys(terms, 1.0)
        losses = [self.above[term] for term in terms]
        found = direction(rows, given, losses, self.tolerance)
        # Weights that add up to 1, as those of Mix do.
        return {term: a / w for term, a, w in zip(terms, found, given, strict=True)}


def direction(rows: list[Row], given: Row, losses: Row, tolerance: float) -> Row:
    """Weights (m) of the gradients whose inner products are `rows`."""
    size = len(given)
    weighted = [w * x for w, x in zip(given, losses, strict=True)]
    logs = [math.log(size * x / sum(weighted)) for x in weighted]
    mu = sum(x * log for x, log in zip(weighted, logs, strict=True)) / sum(weighted)
    pull = times(rows, [w * (log - mu) for w, log in zip(given, logs, strict=True)])
    if mu <= tolerance:
        best = [sum(row[n] for row in rows) for n in range(size)]
        return _program(rows, best, [0.0] * size)
    worst = max(weighted)
    if not any(x > 0 for x in pull):
        floor = [0.0] * size
    else:
        floor = [-math.inf if x > 0 else x for x in pull]
        floor = [0.0 if x == worst else y for x, y in zip(weighted, floor, strict=True)]
    return _program(rows, pull, floor)


def _program(rows: list[Row], best: Row, floor: Row) -> Row:
    """The weights, at least 0 and adding up to 1, whose combination has at least `floor` with each
    gradient, with the most of `best`; equal ones where there are none."""
    from scipy.optimize import linprog

    size = len(best)
    scale = max(abs(x) for row in rows for x in row)
    held = [n for n in range(size) if floor[n] > -math.inf]
    found = linprog(
        [-x / scale for x in best],
        A_ub=[[-x / scale for x in rows[n]] for n in held] or None,
        b_ub=[-floor[n] / scale for n in held] or None,
        A_eq=[[1.0] * size],
        b_eq=[1.0],
    )
    return [max(0.0, float(x)) for x in found.x] if found.success else [1 / size] * size
