"""Prefix-RFT's hints: a share of the solution's tokens, from a window that opens downwards.

    share ~ U[low_t, high],   low_t = low + (high - low) (1 + cos(pi t / steps)) / 2

Prefix-RFT (arXiv 2507.01679): low_t falls from 0.95 to 0.05 over the 500 steps of training, so
that hints are nearly whole solutions at first and of any length at the end. They cut between tokens,
not sentences, and never stop. One completion of a group (of eight, in the paper) is given the prefix.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from onestage.rollout.hints import Hint


@dataclass(frozen=True)
class Prefix(Hint):
    unit: ClassVar[Literal["chunk", "token"]] = "token"
    members: ClassVar[Literal["all", "one"]] = "one"
    steps: int = 500
    """Steps over which the window opens; it stays open afterwards."""
    low: float = 0.05
    """The smallest share at the end."""
    high: float = 0.95
    """The largest share, and the smallest at the start."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.low <= self.high <= 1:
            raise ValueError(f"needs 0 <= low <= high <= 1, got {self.low} and {self.high}")
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")

    def lowest(self, step: int) -> float:
        """low_t of a step counted from 0."""
        gone = min(step / self.steps, 1.0)
        return self.low + (self.high - self.low) * (1 + math.cos(math.pi * gone)) / 2

    def length(
        self, step: int, size: int, random: np.random.Generator, state: Mapping[str, float]
    ) -> int:
        return int(random.uniform(self.lowest(step), self.high) * size)
