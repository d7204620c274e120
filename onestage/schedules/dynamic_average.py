"""Dynamic weight average: a term whose loss fell less of late weighs more.

    w_i = lambda_i exp(r_i / T) / sum_j lambda_j exp(r_j / T)
    r_i = D_i(last window) / D_i(the one before)

Liu, Johns and Davison 2019 (arXiv 1803.10704), equation 7, T = 2; losses are above their f*, which is 0
where it is not told. Their windows are epochs; here they are a number of steps. Until two are full, all
terms have their given weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onestage.schedules import active
from onestage.schedules._balancing import Balancing


@dataclass
class DynamicAverage(Balancing):
    temperature: float = 2.0
    """T: the larger, the nearer to the given weights."""
    window: int = 25
    """Steps over which a loss is averaged."""
    before: dict[str, float] = field(default_factory=dict, init=False)
    """Means of the window before the last full one, whose means are `above`."""
    sums: dict[str, list[float]] = field(default_factory=dict, init=False)
    """Of the window that is filled now: sum and number of losses."""
    filled: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.temperature > 0 and self.window >= 1):
            raise ValueError(
                "dynamic_average: needs temperature > 0 and window >= 1, got "
                f"{self.temperature}, {self.window}"
            )

    def weigh(self, step: int) -> dict[str, float]:
        both = {term for term in self.above if term in self.before}
        ratio = {t: self.above[t] / self.before[t] if t in both else 1.0 for t in self.weights}
        most = max(ratio.values())  # so that no power overflows
        return self.scaled({t: math.exp((r - most) / self.temperature) for t, r in ratio.items()})

    def observe(self, step: int, losses: Mapping[str, float]) -> None:
        for term, value in self.taken_in(losses).items():
            total, count = self.sums.get(term, [0.0, 0.0])
            self.sums[term] = [total + value, count + 1]
        self.filled += 1
        if self.filled < self.window or not active(self.weights):
            return
        means = {term: total / count for term, (total, count) in self.sums.items()}
        self.before, self.above = self.above, {**self.above, **means}
        self.sums, self.filled = {}, 0

    def state(self) -> dict[str, Any]:
        sums = {term: list(pair) for term, pair in self.sums.items()}
        mine = {"before": dict(self.before), "sums": sums, "filled": self.filled}
        return {**super().state(), **mine}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self.before, self.filled = dict(state["before"]), state["filled"]
        self.sums = {term: list(pair) for term, pair in state["sums"].items()}
