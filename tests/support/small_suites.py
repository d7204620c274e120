"""Suites whose time and scores a test chooses, beside the real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import sleep
from typing import Any, ClassVar

from onestage.rollout.suites import Content, Item, Scores, Subject, Suite


@dataclass(frozen=True)
class Slow(Suite):
    """Each answer takes a while; each is worth what the model's weights say at the moment."""

    seconds: float = 0.004
    size: int = 200
    sign: float = 1.0

    headline: ClassVar[str] = "mean"

    def items(self, chat: bool) -> list[Item]:
        return [Item(str(number), f"item {number}") for number in range(self.size)]

    def ask(self, subject: Subject, items: Sequence[Item]) -> list[Content]:
        sleep(self.seconds * len(items))
        weight = next(p for p in subject.policy.parameters() if p.requires_grad)
        return [{"completion": f"{float(weight.sum()):.6f}"} for _ in items]

    def score(self, items: Sequence[Item], answers: Sequence[Content]) -> list[Any]:
        return [
            self._worth(int(item.id), answer) for item, answer in zip(items, answers, strict=True)
        ]

    def _worth(self, number: int, answer: Content) -> Scores:
        return {"mean": self.sign * float(answer["completion"]) + 0.01 * (number % 3)}


@dataclass(frozen=True)
class Rambling(Suite):
    """Answers go on for a thousand tokens, of half a millisecond each, where nobody ends them."""

    headline: ClassVar[str] = "length"

    def items(self, chat: bool) -> list[Item]:
        return [Item(str(number), f"item {number}") for number in range(50)]

    def ask(self, subject: Subject, items: Sequence[Item]) -> list[Content]:
        length = min(1000, subject.most or 1000)
        sleep(0.0005 * length * len(items))
        subject.stopped.extend(item.id for item in items if length < 1000)
        return [{"completion": "x" * length} for _ in items]

    def score(self, items: Sequence[Item], answers: Sequence[Content]) -> list[Any]:
        return [{"length": float(len(answer["completion"]))} for answer in answers]


SCRIPT: list[float] = []
"""What `Scripted` finds, evaluation after evaluation."""


@dataclass(frozen=True)
class Scripted(Suite):
    """Two items, which are worth what the script says next."""

    above: float = 0.0
    """What the item that is asked first is worth above the other."""

    headline: ClassVar[str] = "worth"

    def items(self, chat: bool) -> list[Item]:
        return [Item("a", "a"), Item("b", "b")]

    def ask(self, subject: Subject, items: Sequence[Item]) -> list[Content]:
        return [{"completion": ""} for _ in items]

    def score(self, items: Sequence[Item], answers: Sequence[Content]) -> list[Any]:
        worth, (first, last) = SCRIPT[0], self.order
        if items[-1].id == last:
            SCRIPT.pop(0)
        return [{"worth": worth + self.above * (item.id == first)} for item in items]

    @property
    def order(self) -> list[str]:
        """In which they are asked: drawn once."""
        from onestage.training.asked import drawn

        return [item.id for item in drawn("small_suites", self.items(False))]
