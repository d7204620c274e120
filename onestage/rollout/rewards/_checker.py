"""A reward that is a pure function of one answer, run apart from the main process."""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from dataclasses import dataclass

from onestage.rollout.rewards import Answer, Failure, Reward
from onestage.rollout.rewards import _pool as pool


class NotJudged(Exception):
    """What `judge` raises for an answer that may be right or wrong for all that can be said: it is
    neither paid nor punished, and counted as `undecided`."""


@dataclass(frozen=True)
class Checker(Reward):
    """The base of all checkers: a frozen dataclass of options, one definition of `judge`.

    `judge` reads text that a model wrote. It may be slow, crash or raise: that costs its own answer,
    and nothing else. It must never hand that text to `eval`, `exec` or a shell.

    A checker that can make problems too has a classmethod `rows`, whose arguments are the options of
    `onestage problems NAME` (`_problems` says how): `rows(count, seed, ...)` makes them up,
    `rows(data, ...)` makes them of a data set's rows. What it yields are rows with `prompt`, the columns
    that `judge` reads and, where there is one, a worked answer (`solution`, `completion`).
    """

    deadline: float = 5.0
    """Seconds for one answer, by the clock, from when it is begun."""

    def __post_init__(self) -> None:
        if not 0 < self.deadline < math.inf:
            raise ValueError(f"deadline must be positive and finite, got {self.deadline}")

    @abc.abstractmethod
    def judge(self, answer: Answer) -> float:
        """The reward of one answer. Runs in a worker."""

    def prepare(self) -> None:
        """Import and load what `judge` needs, once in each worker, outside the deadline. `ValueError`
        where that cannot be had."""

    def __call__(self, answers: Sequence[Answer]) -> list[float | Failure]:
        return pool.shared().judge(self, answers)

    def begin(self) -> None:
        """Have the shared workers made ready, and do not wait for them."""
        pool.shared().begin(self)

    def close(self) -> None:
        """End the shared workers; the next answer of any checker starts new ones."""
        pool.close_shared()
