"""The sentence about a missing column: what a row needs, what it has, what is probably meant."""

from __future__ import annotations

import difflib
import json
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from onestage.data.kinds import A_ROW_NEEDS, COLUMNS, FEEDBACK, Kind

if TYPE_CHECKING:
    from onestage.data.stream import Stream

ALIASES: Mapping[str, tuple[str, ...]] = {
    column: aliases for kind in FEEDBACK.values() for column, aliases in kind.aliases.items()
}
"""What other data sets call our columns."""

RATERS = frozenset(("rater", "rater_id", "annotator_id", "labeler", "worker", "worker_id"))
"""What other data sets call the column of who has judged."""

SHOWN_COLUMNS = 12

ALWAYS = frozenset(("kind", "weight", "id", "tools", "chat_template_kwargs", "annotator"))
"""Columns (by our names) of any row."""

SYSTEMS = frozenset(("system_prompt", "system_message", "system_instruction", "system_text"))
"""What other data sets call `system`."""

TOLD = frozenset(("raters", "spread", "agree"))
"""Columns that `convert` writes for readers: how many have judged an answer, and how far they agree."""

BESIDE = {"instruction": ("input", "output", "system", "history"), "conversations": ("system",)}
"""Columns (by our names) that are read beside another."""

ADJECTIVES = frozenset(("correct", "correctness", "safe", "approved"))
"""Other names of ours that say something else beside another word: `correct_answer`."""

SAME = {
    alias: column
    for column, aliases in ALIASES.items()
    for alias in aliases
    if "_" not in alias and alias not in ADJECTIVES
}
"""One word for another in the names of columns."""

TAKEN = frozenset(alias for aliases in ALIASES.values() for alias in aliases)
"""What other data sets call some column of ours, exactly."""

NUMBERED = re.compile(r"[_ -]?(\d|[a-z])$", re.IGNORECASE)
"""The end of a name by which one of several answers is told from the others."""

SHORT = 4
"""Names of so few letters are near too much."""

FILLER = frozenset(
    ("response", "completion", "answer", "text", "message", "content", "column", "value", "given")
)
"""Words in the names of columns that say no more than that there is a response."""


def nearest_name(wanted: str, candidates: Sequence[str]) -> str | None:
    """The candidate that looks like a slip of the pen for `wanted`, if one does."""
    close = difflib.get_close_matches(wanted, candidates, n=1, cutoff=0.8)
    return close[0] if close else None


def missing_column(
    missing: str,
    kind: Kind,
    row: Mapping[str, Any],
    names: Mapping[str, str],
    unread: Sequence[str],
) -> str:
    """A row whose kind is known lacks a column of it. `names` maps the file's columns to ours."""
    column = next((theirs for theirs, ours in names.items() if ours == missing), missing)
    needed = tuple(dict.fromkeys((*FEEDBACK[kind].needs, missing)))
    needs = ", ".join(f"`{name}`" for name in needed)
    needs += f" (or `{FEEDBACK[kind].instead}`)" if FEEDBACK[kind].instead else ""
    called = f"`{missing}`" if column == missing else f"`{missing}` (here {column!r})"
    state = "null" if column in row else "missing"
    spare = [name for name in _present(row, unread) if names.get(name) not in needed]
    hint = _converted(row) or _hint(((missing, column),), spare)
    return f"a {kind} row needs {needs}; {called} is {state}, found {_listed(row, unread)}{hint}"


def no_feedback(row: Mapping[str, Any], names: Mapping[str, str], unread: Sequence[str]) -> str:
    """A row without any column that speaks of a response."""
    column_of = {ours: theirs for theirs, ours in names.items()}
    wanted = [(ours, column_of.get(ours, ours)) for ours in ALIASES if ours != "prompt"]
    hint = _converted(row) or _hint(wanted, _present(row, unread)) or _within(row)
    return f"{A_ROW_NEEDS}; found {_listed(row, unread)}{hint}"


def _converted(row: Mapping[str, Any]) -> str:
    """What is said of a row in a format that others use; "" where none is recognised."""
    from onestage.data.recognise import formats_of  # which stands on readers, and they on this

    found = formats_of(row)
    if not found:
        return ""
    options = "" if len(found) == 1 else f" --from {found[0]}"
    return f"; this is a row of {' or '.join(found)}: onestage convert FILE rows.jsonl{options}"


def _within(row: Mapping[str, Any]) -> str:
    """What is said of an object that holds a list of rows; "" of any other."""
    lists = (key for key, held in row.items() if isinstance(held, list) and held)
    key = next((key for key in lists if all(map(_is_row, row[key]))), None)
    if key is None:
        return ""
    plain = key.isascii() and key.isidentifier()
    wanted = shlex.quote(f".{key}[]" if plain else f".[{json.dumps(key)}][]")
    return f"; rows within {key!r} are written one a line by: jq -c {wanted} FILE"


def _is_row(value: object) -> bool:
    """Whether an object has the columns of a kind, in more words than a text has."""
    kinds = (kind for kind in FEEDBACK.values() if not kind.weak)
    marks = (mark for kind in kinds for mark in kind.marks)
    return isinstance(value, Mapping) and any(set(mark) <= value.keys() for mark in marks)


def unused_columns(seen: Sequence[str], kinds: Collection[Kind], stream: Stream) -> dict[str, str]:
    """Of the columns that were `seen`, those that no record of these kinds is made of.

    With each, the column of ours that it may be meant for and that no other column stands for, or "".
    Rewards may look at any column of a problem; where no row was read, its reasons say more.
    """
    names = {column: stream.names.get(column, "") for column in seen}
    if not kinds or any(FEEDBACK[kind].asked for kind in kinds):
        beside = {
            c for column, others in BESIDE.items() if column in names.values() for c in others
        }
        return {
            column: ""
            for column in seen
            if kinds and names[column] in ("history", "input") and names[column] not in beside
        }
    read = {*ALWAYS, *BESIDE.keys() & names.values()}
    read.update(c for column in BESIDE.keys() & names.values() for c in BESIDE[column])
    read.update(("system",) if {"messages", "prompt"} & set(names.values()) else ())
    for kind in (FEEDBACK[kind] for kind in kinds):
        read.update((*kind.needs, *kind.reads, *(c for marks in kind.marks for c in marks)))
    spare = [c for c in seen if names[c] not in read and c not in {*(stream.ratings or {}), *TOLD}]
    filled = set(names.values())
    wanted = [c for c in COLUMNS if c not in filled]
    system = "system" if "system" in read and "system" not in filled else ""
    judged = any(FEEDBACK[kind].scale != "none" or FEEDBACK[kind].paired for kind in kinds)
    rated = "annotator" if judged and "annotator" not in filled else ""
    # What has a name of ours is not meant for another.
    told = {**dict.fromkeys(RATERS, rated), **dict.fromkeys(SYSTEMS, system)}
    return {
        c: told[c.lower()] if c.lower() in told else "" if c in COLUMNS else meant(c, wanted)
        for c in spare
    }


def meant(column: str, wanted: Sequence[str]) -> str:
    """Which of the `wanted` columns (by our names) another name may stand for; "" for none.

    By the words of the name, in any order: `score_chosen`, `chosen-rating`, `rejected_response`.
    """
    words = words_of(column)
    for ours in wanted:
        needed = words_of(ours)
        if column.lower() in ALIASES.get(ours, ()):
            return ours
        if words and (words == needed or (needed < words and words - needed <= FILLER)):
            return ours
    near = nearest_name(column.lower(), [ours for ours in wanted if len(ours) > SHORT])
    return near or ""


def words_of(name: str) -> frozenset[str]:
    """The words of a column's name, other data sets' words for ours replaced."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    return frozenset(SAME.get(word, word) for word in re.split(r"[^a-z]+", apart) if word)


def _present(row: Mapping[str, Any], unread: Sequence[str]) -> list[str]:
    return [*(column for column, value in row.items() if value is not None), *unread]


def _listed(row: Mapping[str, Any], unread: Sequence[str]) -> str:
    present = _present(row, unread)
    shown = ", ".join(repr(column) for column in present[:SHOWN_COLUMNS])
    more = len(present) - SHOWN_COLUMNS
    return (shown or "no column that is not null") + (f" and {more} more" if more > 0 else "")


def _hint(wanted: Sequence[tuple[str, str]], candidates: Sequence[str]) -> str:
    """Slips of the pen first, for all wanted columns; then other data sets' names for them."""
    for names in (lambda ours, column: (column,), lambda ours, column: ALIASES.get(ours, ())):
        for ours, column in wanted:
            for name in names(ours, column):
                near = _one_of(name, candidates)
                if near and near != ours:
                    return f"; did you mean columns: {{{ours}: {near}}}?"
    return ""


def _one_of(wanted: str, candidates: Sequence[str]) -> str | None:
    """As `nearest_name`; None where others have as good a claim: `response_0` beside `response_1` are
    two answers, and which of them is the better one their names do not say. What is another column of
    ours, by its own name or another data set's, is no slip of the pen."""
    near = nearest_name(wanted, [one for one in candidates if one == wanted or one not in TAKEN])
    if near is None:
        return None
    return None if has_twin(near, candidates) else near


def has_twin(column: str, columns: Sequence[str]) -> bool:
    """Whether another column has the same name but for the number or letter at its end."""
    stem = NUMBERED.sub("", column)
    return any(one != column and NUMBERED.sub("", one) == stem != column for one in columns)
