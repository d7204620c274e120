"""FAMO: weights by which all terms' losses fall at the same rate, in the memory of one number a term.

    theta <- theta - alpha sum_i c z_i / D_i grad f_i,   D_i = f_i - f_i*,  z = softmax(xi),
    c = 1 / sum_i z_i / D_i;   xi <- xi - Adam(J(xi)^T delta + gamma xi),  delta_i = log D_i - log D_i'

Liu, Feng, Stone and Liu 2023 (arXiv 2306.03792), algorithm 1 with the authors' Adam (rate .025, gamma
.01). Multiplying a loss by a constant changes nothing. They measure D' on the same batch again after the
update, a forward pass more a step; here it is the loss of the next batch, which is known for free, and a
running mean over steps takes out most of what differs from batch to batch. The given weights multiply z.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onestage.schedules import active
from onestage.schedules._balancing import Balancing

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


@dataclass
class Famo(Balancing):
    rate: float = 0.025
    """Of Adam on xi."""
    gamma: float = 0.01
    """How strongly xi is drawn back to 0, where z are the given weights."""
    ema_rate: float = 0.1
    """How much a loss counts against those before; 1 replaces them."""
    logits: dict[str, float] = field(default_factory=dict, init=False)
    """xi."""
    moments: dict[str, list[float]] = field(default_factory=dict, init=False)
    """Adam's two running means of each xi."""
    updates: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.rate > 0 and self.gamma >= 0 and 0 < self.ema_rate <= 1):
            raise ValueError(
                "famo: needs rate > 0, gamma >= 0 and ema_rate in (0, 1], got "
                f"{self.rate}, {self.gamma}, {self.ema_rate}"
            )

    @property
    def z(self) -> dict[str, float]:
        """The given weights times softmax(xi), scaled to add up to 1."""
        return self.scaled({term: math.exp(self.logits.get(term, 0.0)) for term in self.weights})

    def weigh(self, step: int) -> dict[str, float]:
        z = self.z
        pull = {term: z[term] / self.above.get(term, 1.0) for term in self.weights}
        total = sum(pull.values())
        return {term: one / total for term, one in pull.items()}

    def observe(self, step: int, losses: Mapping[str, float]) -> None:
        fallen, known = dict.fromkeys(active(self.weights), 0.0), bool(self.above)
        for term, value in self.taken_in(losses).items():
            before = self.above.get(term, value)
            self.above[term] = before + self.ema_rate * (value - before)
            fallen[term] = math.log(before) - math.log(self.above[term])
        if not known:  # the first losses are only remembered
            return
        z = self.z
        mean = sum(z[term] * fall for term, fall in fallen.items())
        self.updates += 1
        for term, fall in fallen.items():
            xi = self.logits.get(term, 0.0)
            self.logits[term] = xi - self._adam(term, z[term] * (fall - mean) + self.gamma * xi)

    def _adam(self, term: str, slope: float) -> float:
        first, second = self.moments.get(term, [0.0, 0.0])
        first = BETA_1 * first + (1 - BETA_1) * slope
        second = BETA_2 * second + (1 - BETA_2) * slope**2
        self.moments[term] = [first, second]
        size = math.sqrt(second / (1 - BETA_2**self.updates)) + EPSILON
        return self.rate * first / (1 - BETA_1**self.updates) / size

    def state(self) -> dict[str, Any]:
        moments = {term: list(pair) for term, pair in self.moments.items()}
        mine = {"logits": dict(self.logits), "moments": moments, "updates": self.updates}
        return {**super().state(), **mine}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self.logits, self.updates = dict(state["logits"]), state["updates"]
        self.moments = {term: list(pair) for term, pair in state["moments"].items()}
