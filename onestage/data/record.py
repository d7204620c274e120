"""The record: what someone thought of a response. Plain data; every other room builds on it.

A conversation given as `messages` is a demonstration whose prompt is empty and whose one completion
is the message list: each assistant turn in it is a response. What completions and scores a record of
each kind has: `kinds.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from onestage.data.kinds import FEEDBACK, Kind
from onestage.data.messages import Turns

Role = Literal["response", "hint", "worked", "stranger", "taught"]

ROLES: tuple[Role, ...] = get_args(Role)
"""What a response is: the policy's own (or given in the data), the hint that it was given (its score is
NaN), or the worked answer of the same problem, which others have written. What is only looked at has no
score either: the answer to another prompt (`strangers.py`), and the policy's own answer behind a prompt
that holds the solution."""


@dataclass(frozen=True, slots=True)
class Record:
    """One row of data, checked: `completions` and `scores` agree with `kind`."""

    kind: Kind
    prompt: Turns
    completions: tuple[Turns, ...]
    scores: tuple[float, ...] = ()
    weight: float = 1.0
    source: str = ""
    id: str = ""
    template: Mapping[str, Any] = field(default_factory=dict)
    """Extra arguments of the chat template: `tools` and whatever `chat_template_kwargs` held."""
    solution: tuple[str, ...] = ()
    """Of a problem: the sentences of a worked solution, from which hints are taken."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Of a problem: what a reward may look at (`answer`, `nums`, `target`, ...)."""
    annotator: str | None = None
    """Who gave the feedback, where several may have."""

    @property
    def is_chat(self) -> bool:
        """Whether the record is made of messages, which need a chat template."""
        first = self.completions[0] if self.completions else self.prompt
        return not isinstance(first, str)

    def as_messages(self) -> Record:
        """The same record for a chat template: a plain prompt as a user's message, plain completions
        as the assistant's. Messages and text without a prompt stay as they are."""
        if self.is_chat or FEEDBACK[self.kind].layout == "windows":
            return self
        prompt = ({"role": "user", "content": self.prompt},)
        answers = tuple(({"role": "assistant", "content": text},) for text in self.completions)
        return replace(self, prompt=prompt, completions=answers)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row that is not trained on, and why: never dropped without one of these being counted."""

    where: str
    """File and line, or data set and index: `pairs.jsonl:17`."""
    reason: str
    """What was found and what is allowed, in one sentence."""
    tie: bool = False
    """A pair that prefers neither side: left out and counted, but no mistake of the user's."""
    overlong: bool = False
    """Longer than the run's `max_length`."""
    unlabelled: bool = False
    """A response whose feedback is null: left out and counted, but no mistake of the user's."""
