"""The shortest hint with which the policy succeeds often enough.

A success rate is kept for every relative length (the part of the chunks that was given), and a problem
is given the shortest hint whose rate reaches `target`. The aim is BREAD's (arXiv 2506.17211: the
shortest hint that reaches a success rate); the estimate, which costs no completions of its own and is
shared by all problems, is ours:

- a rate is a mean over past groups in which the last `memory` of them count most, whatever their
  lengths. A length that is no longer tried weighs less and less.
- more help never hurts: rates that fall where hints get longer are pooled (isotonic regression by
  pool-adjacent-violators), so a length that is seldom tried borrows from its neighbours.
- unknown lengths are pessimistic. Each rate counts one group of failures that never was (it fades as
  groups come in), a length never tried is as good as the next shorter one that was, and where no rate
  reaches the target all of the solution is given. So the first hints are whole solutions, as UFT's are.
  Optimism would start with bare questions, on which a weak policy earns nothing, and go back to them
  whenever an estimate has faded.
- what keeps that from standing still: with probability `explore` one chunk fewer is given than would
  be. As the policy improves the shorter hint is seen to suffice and becomes the rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from onestage.rollout.hints import Hint

DOUBT = 1.0
"""Groups of failures that every estimate counts beside those seen."""


@dataclass(frozen=True)
class Adaptive(Hint):
    target: float = 0.5
    """Success rate to be reached; half is where a group tells most."""
    explore: float = 0.1
    """Probability of one chunk fewer than the shortest hint that reaches it."""
    memory: float = 200.0
    """Groups over which a rate is remembered: each weighs (1 - 1/memory) times the next."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (("target", self.target), ("explore", self.explore)):
            if not 0 < value < 1:
                raise ValueError(f"{name} must be between 0 and 1, got {value}")
        if not self.memory >= 10:
            raise ValueError(f"memory must be at least 10 groups, got {self.memory}")

    def length(
        self, step: int, size: int, random: np.random.Generator, state: Mapping[str, float]
    ) -> int:
        chunks = min(size, self.max_chunks)
        enough = self.enough(chunks, state)
        return max(enough - (random.random() < self.explore), 0)

    def enough(self, chunks: int, state: Mapping[str, float]) -> int:
        """The shortest length whose estimated success reaches the target, `chunks` if none does."""
        known = [part for part, rate in estimates(state).items() if rate >= self.target]
        if not chunks or not known:
            return chunks
        needed = min(known)
        return -(-needed.numerator * chunks // needed.denominator)  # rounded up

    def advance(
        self, state: Mapping[str, float], length: int, size: int, success: float
    ) -> dict[str, float]:
        chunks = min(size, self.max_chunks)
        if not chunks:
            return dict(state)
        part = Fraction(length, chunks)
        if not 0 <= part <= 1 or not 0 <= success <= 1:
            raise ValueError(
                f"adaptive: a success in [0, 1] at a length up to {chunks}, got {success} at {length}"
            )
        new = {key: value * (1 - 1 / self.memory) for key, value in state.items()}
        for key, more in ((f"seen {part}", 1.0), (f"right {part}", success)):
            new[key] = new.get(key, 0.0) + more
        return new


def estimates(state: Mapping[str, float]) -> dict[Fraction, float]:
    """Success rate of each relative length that was tried, shortest first, never falling."""
    parts = sorted(Fraction(key.split()[1]) for key in state if key.startswith("seen"))
    blocks: list[tuple[float, float, list[Fraction]]] = []
    for part in parts:
        right, seen, pooled = state[f"right {part}"], state[f"seen {part}"], [part]
        while blocks and blocks[-1][0] * seen >= right * blocks[-1][1]:
            more_right, more_seen, more = blocks.pop()
            right, seen, pooled = right + more_right, seen + more_seen, more + pooled
        blocks.append((right, seen, pooled))
    found: dict[Fraction, float] = {}
    best = 0.0
    for right, seen, pooled in blocks:
        best = max(best, right / (seen + DOUBT))
        found |= dict.fromkeys(pooled, best)
    return found
