"""Wished ratings in the prompt: what an answer was rated stands where a user later says what they want.

Rewards-in-Context (Yang et al. 2024, arXiv 2402.10207) and controllable preference optimisation (Guo
et al. 2024, arXiv 2402.19085): trained on answers of every quality, each behind its own ratings, a
model can be asked for any of them. The values stand in front of the first thing that the user says, in
the units of the data:

    <helpfulness: 4> <verbosity: 1>
    What is a chain?
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from onestage.data._row_error import RowError, shown
from onestage.data.messages import Turns, is_conversation
from onestage.data.scores import DECIMAL

Wish = str | float


def wishes_of(row: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Wish]:
    """What a row's rating columns say. RowError for one that is not there, or no number or word."""
    return {column: _value(column, row.get(column)) for column in columns}


def read_wish(text: str) -> tuple[str, Wish]:
    """`helpfulness=4`, as a command has it. Raises `ValueError`."""
    name, equals, value = text.partition("=")
    if not (equals and name.strip() and value.strip()):
        raise ValueError(f"a wish is NAME=VALUE, as in helpfulness=4; found {text!r}")
    try:
        return name.strip(), float(value)
    except ValueError:
        return name.strip(), value.strip()


def in_prompt(
    prompt: Turns, completions: tuple[Turns, ...], wishes: Mapping[str, Wish]
) -> tuple[Turns, tuple[Turns, ...]]:
    """A row's prompt and completions, the wishes in what the user said. RowError without a prompt."""
    if prompt:
        return wished(prompt, wishes), completions
    if not all(is_conversation(one) for one in completions):
        raise RowError("`wishes` stand in a prompt, and there is none")
    return prompt, tuple(wished(one, wishes) for one in completions)


def wished(turns: Turns, wishes: Mapping[str, Wish]) -> Turns:
    """A prompt (or a conversation) with the wishes in front of what the user says first.

    RowError where the user says nothing."""
    if not wishes:
        return turns
    said = " ".join(f"<{name}: {_plain(value)}>" for name, value in wishes.items())
    if isinstance(turns, str):
        return f"{said}\n{turns}"
    for place, message in enumerate(turns):
        content = message.get("content")
        if message["role"] == "user" and isinstance(content, str):
            changed = {**message, "content": f"{said}\n{content}"}
            return (*turns[:place], changed, *turns[place + 1 :])
    raise RowError(
        "`wishes` stand before what the user says, and no user says anything in text here"
    )


def _value(column: str, value: object) -> Wish:
    if isinstance(value, str) and value.strip():
        # As a user's wish is read: in a table "4.0" is the number of `--wish helpfulness=4`.
        return float(value) if DECIMAL.fullmatch(value.strip()) else value.strip()
    if isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise RowError(f"`wishes` has {column}, which must be a number or a word, found {shown(value)}")


def _plain(value: Wish) -> str:
    return value if isinstance(value, str) else f"{value:g}"
