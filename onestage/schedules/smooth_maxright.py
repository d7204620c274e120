"""Smooth MAXRIGHT: the weights of the log-sum-exp that stands in for MAXRIGHT's maximum.

    M = tau log sum_i exp(lambda_i (f_i - f_i*) / tau);   dM/df_i = lambda_i softmax_i(...)

scaled so that a step's weights add up to 1. tau -> 0 is MAXRIGHT, tau -> infinity is Mix. Smooth
Chebyshev scalarisation reaches parts of a front that linear weights miss (STOMP, arXiv 2604.13175).
Terms of negligible weight are left out of the step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from onestage.schedules._suboptimality import Suboptimality

NEGLIGIBLE = 0.01
"""A term whose share of the step would be less draws no batch."""


@dataclass
class SmoothMaxright(Suboptimality):
    temperature: float = 0.1
    """tau, in units of weighted suboptimality."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0:
            raise ValueError(f"smooth_maxright: temperature must be > 0, got {self.temperature}")

    def weigh(self, step: int) -> dict[str, float]:
        distance, share = self.suboptimality(), self.share
        largest = max(distance.values())
        pull = {
            t: share[t] * math.exp((d - largest) / self.temperature) for t, d in distance.items()
        }
        total = sum(pull.values())
        kept = {term: p for term, p in pull.items() if p / total >= NEGLIGIBLE}
        return {term: kept.get(term, 0.0) / sum(kept.values()) for term in self.weights}
