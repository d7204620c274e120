"""What a world owes the lab: text to pretrain on, rows of feedback, and an exam with checkable answers.

The demo, the tokenizer and the evaluation know only this page, so a richer world replaces the
generated one without touching them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

from onestage.data.kinds import Kind

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
"""What one of them speaks of, the rows of the others never name."""
Row = dict[str, Any]
"""One line of a user's JSON Lines file."""


@dataclass(frozen=True, slots=True)
class Question:
    """Asked by greedy generation; right or wrong."""

    metric: str
    """The metric whose mean this answer goes into."""
    prompt: str
    judge: Callable[[str], bool]
    """Whether a response (end token removed) is right."""
    reference: str = ""
    """What a helper of middling quality answers: right or wrong by turns. Empty: nobody was asked."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Asked by likelihood: the first of `options` is the true continuation."""

    prompt: str
    options: tuple[str, ...]


class Rows(Protocol):
    """What can be written as a user's files."""

    def rows(self, kind: Kind, split: Split) -> list[Row]:
        """Feedback of one kind, as a user would write it."""
        ...


class Source(Rows, Protocol):
    """A world. Everything it gives is a function of its seed."""

    def pretraining_text(self, split: Split) -> Iterator[str]:
        """Documents, in the order to read them; a finite number."""
        ...

    def questions(self, split: Split) -> Sequence[Question]: ...

    def choices(self, split: Split) -> Sequence[Choice]: ...
