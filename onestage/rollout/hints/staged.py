"""One chunk fewer every so many steps, the same for the whole batch.

    l_t = clip(n - t // (T_hint // (n + 1)), 0, n),   n = min(L, sentences)

The staged reduction that UFT is compared with (Liu et al., arXiv 2505.16984, figure 4): with five chunks
and T_hint = 300, one fewer every 50 steps. t counts from 1, as in the authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onestage.rollout.hints import Hint


@dataclass(frozen=True)
class Staged(Hint):
    hint_steps: int = 300
    """T_hint: steps after which no hint is given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hint_steps <= self.max_chunks:
            raise ValueError(
                f"hint_steps must be more than max_chunks ({self.max_chunks}), so that every stage "
                f"has a step; got {self.hint_steps}"
            )

    def length(
        self, step: int, size: int, random: np.random.Generator, state: Mapping[str, float]
    ) -> int:
        if step >= self.hint_steps:
            return 0
        chunks = min(size, self.max_chunks)
        gone = (step + 1) // (self.hint_steps // (chunks + 1))
        return min(max(chunks - gone, 0), chunks)
