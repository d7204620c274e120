"""Hint dropout: now and then the bare question, whatever another rule would give.

    with probability `drop` no hint, else that of `rule`

A policy that only ever sees hinted questions is evaluated on others. Backward Hint Annealing (Xie et al.
2026, arXiv 2604.07747) drops hints question by question, so that updates without a hint go on through
all of the training; its buckets by difficulty are not here (`adaptive` and `scaffold` look at that).
What was seen without a hint is told to the other rule as well, as a hint of length 0.

`drop` 1/2 is our default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from onestage.rollout import hints
from onestage.rollout.hints import Hint


@dataclass(frozen=True)
class Dropout(Hint):
    rule: Any = "cosine"
    """The other rule: a name, or a table of a name and options."""
    drop: float = 0.5
    """Probability of no hint."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.drop <= 1:
            raise ValueError(f"drop must be in [0, 1], got {self.drop}")
        other = self.other
        if (other.unit, other.members, other.per) != (self.unit, self.members, self.per):
            raise ValueError(
                f"rule: {type(other).__name__} counts tokens, hints one completion of a group, or keeps "
                "a state for each problem; take cosine, uniform, staged or adaptive"
            )

    @cached_property
    def other(self) -> Hint:
        """The other rule; it groups solutions in as many chunks."""
        given = {"name": self.rule} if isinstance(self.rule, str) else self.rule
        if isinstance(given, Mapping):
            given = {"max_chunks": self.max_chunks, **given}
        return hints.make(given)

    def length(
        self, step: int, size: int, random: np.random.Generator, state: Mapping[str, float]
    ) -> int:
        if random.random() < self.drop:
            return 0
        return self.other.length(step, size, random, state)

    def advance(
        self, state: Mapping[str, float], length: int, size: int, success: float
    ) -> dict[str, float]:
        return self.other.advance(state, length, size, success)
