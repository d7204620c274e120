"""Rewards that break a law each; workers of the pool import the checkers among them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from onestage.rollout.rewards import Answer, Reward
from onestage.rollout.rewards._checker import Checker


@dataclass(frozen=True)
class Told(Reward):
    """What a function makes of the answers, under a contract that it may break."""

    tell: Callable[[Sequence[Answer]], Any]

    def __call__(self, answers: Sequence[Answer]) -> Any:
        return self.tell(answers)


def mark(answers: Sequence[Answer]) -> list[float]:
    for answer in answers:
        answer.facts["seen"] = True  # type: ignore[index]
    return [0.0] * len(answers)


CALLS = count()

BROKEN: Mapping[str, Callable[[Sequence[Answer]], Any]] = {
    "a reward for each answer": lambda answers: [1.0] * (len(answers) - 1),
    "the same rewards": lambda answers: [float(next(CALLS)) for _ in answers],
    "an empty list": lambda answers: [0.0] * len(answers) or [0.0],
    "a float or a Failure": lambda answers: ["0.5" for _ in answers],
    "is finite": lambda answers: [math.inf for _ in answers],
    "left as they are": mark,
    "raises nothing": lambda answers: [1 / len(answer.completion) for answer in answers],
}


@dataclass(frozen=True)
class Odd(Checker):
    """A checker that fails on what a model may write, or in its checks."""

    what: str = "text"

    def check(self, facts: Mapping[str, Any]) -> None:
        if self.what == "check":
            _ = facts["answer"]

    def judge(self, answer: Answer) -> float:
        if self.what == "slow" and not answer.completion:
            while True:
                pass
        return float(len(answer.completion.split()[0])) if self.what == "text" else 1.0


@dataclass(frozen=True)
class Unsendable(Checker):
    call: Any = field(default_factory=lambda: lambda: 1.0)

    def judge(self, answer: Answer) -> float:
        return self.call()


@dataclass(frozen=True)
class Unsolved(Checker):
    def judge(self, answer: Answer) -> float:
        return 0.0

    @classmethod
    def rows(cls, count: int, seed: int) -> Iterator[dict[str, Any]]:
        for _ in range(count):
            yield {"prompt": "?", "completion": "!"}
