"""How much of a worked solution is given away with the question (Liu et al., arXiv 2505.16984).

A solution is a list of sentences. They are grouped in at most `max_chunks` chunks, and a hint is the
first l of them, l drawn for each problem at each visit and shared by its whole group of completions.
A hint rule is a dataclass of its options, one a file of this package (`Registry`); it is a pure function
of its arguments, so that a resumed run gives the same hints.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np


@dataclass(frozen=True)
class Hint(abc.ABC):
    """The base of all rules."""

    unit: ClassVar[Literal["chunk", "token"]] = "chunk"
    """What `length` counts: chunks of sentences, or tokens of the solution."""
    members: ClassVar[Literal["all", "one"]] = "all"
    """Who in a group of completions is given the hint."""
    gives: ClassVar[bool] = True
    """Whether it ever gives any."""
    max_chunks: int = 5
    """L: longer solutions are grouped in this many chunks."""

    def __post_init__(self) -> None:
        if self.max_chunks < 1:
            raise ValueError(f"max_chunks must be at least 1, got {self.max_chunks}")

    @abc.abstractmethod
    def length(
        self, step: int, size: int, random: np.random.Generator, state: Mapping[str, float]
    ) -> int:
        """Units given at rollout `step` (from 0) to a problem that has `size` of them."""

    def initial_state(self) -> dict[str, float]:
        """What it carries from rollout to rollout, at the start. Kept in checkpoints."""
        return {}

    def advance(
        self, state: Mapping[str, float], length: int, size: int, success: float
    ) -> dict[str, float]:
        """The state after a group that was given `length` of `size` units had a part `success` (in
        [0, 1]) of its completions right."""
        return dict(state)
