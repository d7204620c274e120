"""How much of a worked solution is given away with the question (Liu et al., arXiv 2505.16984).

A solution is a list of sentences. They are grouped in at most `max_chunks` chunks, and a hint is the
first l of them, l drawn for each problem at each visit and shared by its whole group of completions.
A hint rule is a dataclass of its options, one a file of this package (`Plugins`); it is a pure function
of its arguments, so that a resumed run gives the same hints.

Sentences of a worked solution, grouped in a few nearly equal chunks (UFT, the authors' code).

A hint is made of whole chunks. A solution of no more sentences than chunks has a chunk a sentence;
a longer one is cut at round(i * sentences / chunks), where a half goes to the even number as Python's
`round` has it: nine sentences in five chunks end at 2, 4, 5, 7 and 9.

A value that falls along half a cosine: of schedules, and of hints.

Hint rules by name.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from onestage.config import Plugins


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


def boundaries(sentences: int, chunks: int = 5) -> list[int]:
    """Where chunks begin and end: chunk i holds sentences [b[i], b[i + 1]).

    Rises strictly from 0 to `sentences`; [0] for an empty solution. There are min(sentences, chunks)
    chunks, which is the `size` that a hint rule is given.
    """
    if sentences < 0 or chunks < 1:
        raise ValueError(
            f"needs at least 0 sentences and 1 chunk, got {sentences} sentences and {chunks} chunks"
        )
    if sentences <= chunks:
        return list(range(sentences + 1))
    return [round(i * sentences / chunks) for i in range(chunks)] + [sentences]


def falling(high: float, low: float, gone: float) -> float:
    """`high` at the start, `low` where all of the way is `gone` (a part, in [0, 1])."""
    return low + (high - low) * (1 + math.cos(math.pi * gone)) / 2


PLUGINS = Plugins("hint rule", __name__, Hint)  # type: ignore[type-abstract]
names, find, make = PLUGINS.names, PLUGINS.find, PLUGINS.make
