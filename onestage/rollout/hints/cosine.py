"""UFT's hints: each chunk is kept with a probability that falls along a cosine.

    p_t = p_low + (p_high - p_low) (1 + cos(pi t / T_hint)) / 2,   l ~ Binomial(n, p_t),   t <= T_hint

and no hint afterwards (Liu et al., arXiv 2505.16984, equation B.1 and algorithm 1; the authors' code
counts t from 1, we count steps from 0). The length is binomial in the chunks, not uniform: halfway,
five chunks give 2.5 on average with variance 1.25.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onestage.rollout.hints import Hint


@dataclass(frozen=True)
class Cosine(Hint):
    hint_steps: int = 300
    """T_hint: steps after which no hint is given."""
    low: float = 0.05
    """p_low, reached at the last step that gives hints."""
    high: float = 0.95
    """p_high, of the start."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.low <= self.high <= 1:
            raise ValueError(f"needs 0 <= low <= high <= 1, got {self.low} and {self.high}")
        if self.hint_steps < 1:
            raise ValueError(f"hint_steps must be at least 1, got {self.hint_steps}")

    def probability(self, step: int) -> float:
        """p of a step counted from 0: of each chunk to be given."""
        if step >= self.hint_steps:
            return 0.0
        gone = (step + 1) / self.hint_steps
        return self.low + (self.high - self.low) * (1 + math.cos(math.pi * gone)) / 2

    def length(
        self, step: int, size: int, random: np.random.Generator, state: Mapping[str, float]
    ) -> int:
        return int(random.binomial(min(size, self.max_chunks), self.probability(step)))
