"""How much of a worked solution is given away with the question (Liu et al., arXiv 2505.16984).

A solution is a list of sentences, grouped in a few chunks (`_chunks.boundaries`). A hint is the first l
chunks of it (or its first l tokens), l chosen for each problem at each visit and shared by its whole
group of completions. A rule chooses l. It may learn from how a group did, and what it has learnt is a
small state that is handed to it, of all problems of the stream or of each (`per`); beside that it is a
pure function of its arguments, so that a resumed run gives the same hints.

One file of this folder is one rule, a frozen dataclass of its options; `onestage.rollout.hints.Cosine`
and the others are found here by their classes' names, too. `onestage.testing.check_hint` tries a new
one on the laws that all of them keep.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from onestage.config import Plugins


@dataclass(frozen=True)
class Hint(abc.ABC):
    """The contract."""

    unit: ClassVar[Literal["chunk", "token"]] = "chunk"
    """What `length` counts: chunks of sentences, or tokens of the solution."""
    members: ClassVar[Literal["all", "one"]] = "all"
    """Who in a group of completions is given the hint."""
    per: ClassVar[Literal["stream", "problem"]] = "stream"
    """Whose groups its state has learnt from: all of the stream's, or those of the problem itself."""
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
        """Units given, 0 to `size`, at rollout `step` (from 0) to a problem that has `size` of them.

        `random`: made for this problem at this visit. `state`: what `advance` has left, {} at first.
        """

    def advance(
        self, state: Mapping[str, float], length: int, size: int, success: float
    ) -> dict[str, float]:
        """The state after a group that was given `length` of `size` units had a part `success` (in
        [0, 1]) of its completions right. Kept in checkpoints, as plain numbers."""
        return dict(state)


PLUGINS = Plugins("hint rule", __name__, Hint)  # type: ignore[type-abstract]
names, find, make = PLUGINS.names, PLUGINS.find, PLUGINS.make


def __getattr__(name: str) -> Any:
    """`onestage.rollout.hints.Cosine`: the file is read when the class is asked for."""
    return PLUGINS.by_class(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *(find(name).__name__ for name in PLUGINS.built_in())})
