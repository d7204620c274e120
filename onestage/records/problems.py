"""What only a checkable problem has: a worked solution in sentences, and the facts rewards look at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onestage.problems.steps import sentences
from onestage.records.parts import Row
from onestage.records.row_error import RowError, shown
from onestage.records.turns import without_nulls

SPOKEN = frozenset(
    (
        *("kind", "weight", "id", "tools", "chat_template_kwargs", "messages", "prompt"),
        *("completion", "solution", "instruction", "input", "output", "system", "history"),
    )
)
"""Columns (by our names) that are part of the conversation or of the record, and no facts."""


def solution_of(row: Row) -> tuple[str, ...]:
    """Sentences of the worked solution: a list as it is, a text cut at lines and sentence ends."""
    given = row.found.get("solution")
    if given is None:
        return ()
    if isinstance(given, str):
        return tuple(sentences(given))
    if not isinstance(given, (list, tuple)) or not all(isinstance(part, str) for part in given):
        raise RowError(f"`solution` must be a text or a list of sentences, found {shown(given)}")
    found = tuple(part for part in given if part)
    if "completion" in row.found and isinstance(row.found["completion"], str):
        whole = "".join(found)
        if not row.found["completion"].startswith(whole):
            raise RowError("`completion` must begin with the sentences of `solution`")
    return found


def facts_of(row: Row, names: Mapping[str, str]) -> dict[str, Any]:
    """Everything a reward may look at, under our names where we have one."""
    facts = {names.get(column, column): value for column, value in row.raw.items()}
    return {
        name: without_nulls(value)
        for name, value in facts.items()
        if name not in SPOKEN and value is not None
    }
