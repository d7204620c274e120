"""The record: what someone thought of a response. Plain data; every other room builds on it.

| kind            | completions          | scores                                         |
|-----------------|----------------------|------------------------------------------------|
| `demonstration` | one                  | none (read as 1 by objectives that want scores) |
| `score`         | one                  | one, in [0, 1]                                 |
| `label`         | one                  | one, 1.0 (thumb up) or 0.0 (thumb down)        |
| `pair`          | (chosen, rejected)   | none, or two in [0, 1]                         |
| `group`         | two or more          | one a completion, in [0, 1]                    |
| `text`          | one (prompt is "")   | none                                           |
| `check`         | none, or one worked answer | none: the policy answers, a reward judges |

A conversation given as `messages` is a demonstration whose prompt is empty and whose one completion
is the message list: each assistant turn in a completion is a response.

What is wrong with one row, in one sentence. Reading turns these into counted refusals.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

Kind = Literal["demonstration", "score", "label", "pair", "group", "text", "check"]


KINDS: tuple[Kind, ...] = get_args(Kind)


ANSWERED: tuple[Kind, ...] = KINDS[:-1]
"""The kinds that come with responses; a `check` record gets its own while training."""


Role = Literal["response", "hint", "worked"]


ROLES: tuple[Role, ...] = get_args(Role)
"""What a response is: the policy's own (or given in the data), the hint that it was given (its score is
NaN), or the worked answer of the same problem, which others have written."""


Message = Mapping[str, Any]
"""One turn of a conversation: at least `role` and `content`, as chat templates know it."""


Turns = str | tuple[Message, ...]
"""Plain text, or the turns of a conversation."""


@dataclass(frozen=True, slots=True)
class Record:
    """One row of data, checked: `completions` and `scores` agree with `kind` (table above)."""

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
    """Of a `check` record: the sentences of a worked solution, from which hints are taken."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Of a `check` record: what a reward may look at (`answer`, `nums`, `target`, ...)."""

    @property
    def is_chat(self) -> bool:
        """Whether the record is made of messages, which need a chat template."""
        first = self.completions[0] if self.completions else self.prompt
        return not isinstance(first, str)

    def as_messages(self) -> Record:
        """The same record for a chat template: a plain prompt as a user's message, plain completions
        as the assistant's. Messages and text stay as they are."""
        if self.is_chat or self.kind == "text":
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


class RowError(ValueError):
    """A row that cannot be trained on: the message says what was found and what is allowed."""


class Tie(RowError):
    """A pair that prefers neither side. Left out and counted, but no mistake of the user's."""


def shown(value: object) -> str:
    """`value` as an error message shows it: short, and printable whatever it holds."""
    return f"{type(value).__name__} {reprlib.repr(value)}"
