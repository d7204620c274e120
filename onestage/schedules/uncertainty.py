"""Uncertainty weights: a term weighs as much as its loss is small, by a learned variance.

    L = sum_i exp(-s_i) D_i + s_i / 2;   s_i <- s_i - rate (1/2 - exp(-s_i) D_i)

Kendall, Gal and Cipolla 2018 (arXiv 1705.07115), equation 10 with s = log sigma^2, the form for
likelihoods of classes; D_i = f_i - f_i*. For a loss that stands still, exp(-s_i) goes to 1 / (2 D_i), so
each term's product of weight and loss becomes the same, as Kirchdorfer et al. 2024 (arXiv 2408.07985)
write it at once. The weights are scaled to add up to 1, which the paper leaves to the learning rate; the
given weights multiply them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onestage.schedules._balancing import Balancing

BORDER = 10.0
"""Of s: weights between e^-10 and e^10."""


@dataclass
class Uncertainty(Balancing):
    rate: float = 0.05
    """Of the gradient descent on s."""
    logs: dict[str, float] = field(default_factory=dict, init=False)
    """s_i, 0 at the start."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.rate > 0:
            raise ValueError(f"uncertainty: rate must be > 0, got {self.rate}")

    def weigh(self, step: int) -> dict[str, float]:
        return self.scaled({term: math.exp(-self.logs.get(term, 0.0)) for term in self.weights})

    def observe(self, step: int, losses: Mapping[str, float]) -> None:
        for term, value in self.taken_in(losses).items():
            self.above[term], s = value, self.logs.get(term, 0.0)
            # A step is clipped to 1: a loss of hundreds would throw s far past its best.
            step_of = max(-1.0, min(1.0, self.rate * (0.5 - math.exp(-s) * value)))
            self.logs[term] = max(-BORDER, min(BORDER, s - step_of))

    def state(self) -> dict[str, Any]:
        return {**super().state(), "logs": dict(self.logs)}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self.logs = dict(state["logs"])
