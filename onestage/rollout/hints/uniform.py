"""Every beginning is as likely as any other, from the first step to the last.

Xi et al. 2024 (R3, arXiv 2402.05808) mix the stages of a backward curriculum: the hint ends at one of
the n + 1 boundaries of the n chunks, none and all included. UFT's theorem needs no more than this (it
asks for a law that gives every length some probability).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onestage.rollout.hints import Hint


@dataclass(frozen=True)
class Uniform(Hint):
    def length(
        self, step: int, size: int, random: np.random.Generator, state: Mapping[str, float]
    ) -> int:
        return int(random.integers(min(size, self.max_chunks) + 1))
