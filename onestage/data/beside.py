"""What stands beside the columns that a kind is made of, and belongs to them: a system text, a question
beside an instruction, an answer beside a text. It is read, or the row is refused with what to say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onestage.data._row_error import RowError
from onestage.data.kinds import Kind
from onestage.data.messages import prompt_of
from onestage.data.sharegpt import with_system

BESIDE: Mapping[str, frozenset[str]] = {
    "text": frozenset(
        "target summary code role parent_id response output reply annotation".split()
    ),
    "check": frozenset(("response", "reply")),
}
"""Columns (by their own names) beside which a text, or a problem, may be a part of something else."""


def read_system(found: dict[str, Any]) -> None:
    """Puts a `system` column in front of the prompt, which makes messages of it; that of `messages` and
    `conversations` is read with them."""
    if "messages" in found or "conversations" in found:
        return
    if "prompt" in found:
        prompt = prompt_of(found["prompt"])
        turns = ({"role": "user", "content": prompt},) if isinstance(prompt, str) else prompt
        found["prompt"] = list(with_system(turns, found["system"], "prompt"))
    elif "chosen" in found:
        raise RowError(
            "found `system` beside `chosen` and `rejected` without a `prompt`: put it in front of both "
            "as a message of the role system"
        )


def has(
    column: str, row: Mapping[str, Any], names: Mapping[str, str], unread: tuple[str, ...]
) -> bool:
    """Whether a row has a column that stands for nothing else, read or left on disk."""
    if names.get(column, column) != column:
        return False
    return row.get(column) is not None or (column in unread and column not in row)


def refuse_question(
    row: Mapping[str, Any], names: Mapping[str, str], unread: tuple[str, ...]
) -> None:
    """RowError for an instruction beside a question, of which it would be the prompt alone."""
    if has("question", row, names, unread) and not has("prompt", row, names, unread):
        raise RowError(
            "found `question` beside `instruction`: set columns: {prompt: question, system: "
            "instruction} if every question has the instruction in front of it"
        )


def refuse_beside(
    kind: Kind,
    found: Mapping[str, Any],
    row: Mapping[str, Any],
    names: Mapping[str, str],
    unread: tuple[str, ...],
) -> None:
    """RowError for a text beside what it may be the prompt of, and an answer beside a response."""
    beside = BESIDE.get(kind)
    if beside is None or "completion" in found:
        return
    said = sorted(one for one in beside if has(one, row, names, unread))
    if said and kind == "text":
        raise RowError(
            f"found `{said[0]}` beside `text`: set `kind` to text to train on the text alone, or say "
            f"what they are, as columns: {{prompt: text, completion: {said[0]}}}"
        )
    if said:
        raise RowError(
            f"found `{said[0]}` beside `answer`: set columns: {{completion: {said[0]}}} if it is the "
            f"response, or `kind` to {kind} if the answer is what a reward compares with"
        )
