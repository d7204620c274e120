"""What a reward sees and returns.

A reward judges sampled responses: an `Answer` holds what was asked, what was given as a hint, what
the policy wrote, and the record's own columns (the right answer, the numbers of a Countdown problem,
...). Rewards are dataclasses of their options, one a file of this package (`Plugins`).

Most are a `Checker`: a pure function of one answer. It runs outside the main process with a deadline
(`_pool`), because the text it reads comes from a model under training: nothing in it may hang, crash or
fool the run. Others (a reward model, a judge behind a network) score many answers at once themselves.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onestage.config import Plugins


@dataclass(frozen=True, slots=True)
class Answer:
    """A response to be judged."""

    prompt: str
    """The prompt as the model saw it, chat template applied, without the hint."""
    completion: str
    """What the policy wrote, without special tokens."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """The record's columns that are no part of the conversation: `answer`, `nums`, `target`, ..."""
    hint: str = ""
    """The beginning of a solution that it was given."""
    ended: bool = True
    """Whether it ended by itself (an end token) within the limit."""
    tokens: int = 0
    """Of the completion, the end token included."""
    turns: tuple[Mapping[str, Any], ...] = ()
    """The prompt as messages, where the record has messages."""
    template: Mapping[str, Any] = field(default_factory=dict)
    """What the chat template was told beside them (`tools`, `chat_template_kwargs`)."""

    @property
    def response(self) -> str:
        """Hint and completion: the whole of what stands behind the prompt."""
        return self.hint + self.completion


@dataclass(frozen=True, slots=True)
class Failure:
    """No reward could be found: why, and of which sort."""

    sort: str
    """`deadline`, `crash`, `raised`, `value` (None, NaN, a string, ...), `network`, ..."""
    reason: str


class Reward(abc.ABC):
    """A frozen dataclass of options."""

    @abc.abstractmethod
    def __call__(self, answers: Sequence[Answer]) -> list[float | Failure]:
        """A reward, on any scale, or a failure, for each answer, in order. Raises nothing for what
        an answer holds; `ValueError` where the reward itself is set up wrongly."""

    def check(self, facts: Mapping[str, Any]) -> None:  # noqa: B027 - most need nothing
        """Raise `ValueError` where a record's columns do not allow judging answers to it. Called for
        every record before the first step."""

    def spent(self) -> dict[str, float]:
        """What judging has cost since this process began, by name; kept in the metrics."""
        return {}

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Let go of processes, models and connections."""


PLUGINS = Plugins("reward", __name__, Reward)  # type: ignore[type-abstract]
names, find, make = PLUGINS.names, PLUGINS.find, PLUGINS.make


def __getattr__(name: str) -> Any:
    """`onestage.rewards.Countdown`: the file is read when the class is asked for."""
    if name == "Checker":  # stands on the pool, which stands on this file
        from onestage.rollout.rewards._checker import Checker

        return Checker
    return PLUGINS.by_class(name)


def __dir__() -> list[str]:
    return sorted({"Checker", *globals(), *(find(name).__name__ for name in PLUGINS.built_in())})
