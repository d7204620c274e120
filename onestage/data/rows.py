"""One row of a source to one `Record`, or a `RowError` that says what was found and what is allowed.

Which kind a row is, its columns tell, never a guess: two readings are an error. A row has a column when
it is present and not null, because one Parquet file of many kinds has every column in every row. But a
response whose feedback is null was judged by nobody, and is no demonstration for it
(`_null_feedback`). What each kind reads stands in `kinds.py`; beside that, every row may have `kind`,
`weight`, `id`, `tools` and `chat_template_kwargs`. `instruction` (+ `input`) stands for `prompt` and
`output` for `completion`, as in Alpaca, with `system` and `history` before them. Other columns are
ignored, as public data sets have many, and named by `onestage check`; feedback that would be ignored is
refused. Of a problem they are its facts, which rewards look at.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from onestage.data._row_advice import missing_column, no_feedback
from onestage.data._row_error import RowError, shown
from onestage.data.beside import read_system, refuse_beside, refuse_question
from onestage.data.kinds import (
    FEEDBACK,
    FeedbackKind,
    Kind,
    MissingColumn,
    NamedRow,
    stated_kind,
)
from onestage.data.messages import Turns, text_of, without_nulls
from onestage.data.parts import MEDIA, refuse_media, unfold
from onestage.data.record import Record
from onestage.data.scores import row_weight
from onestage.data.sentences import sentences
from onestage.data.sharegpt import alpaca_turns
from onestage.data.stream import FOREIGN, Stream
from onestage.data.wishes import in_prompt, wishes_of

SPOKEN = frozenset(
    (
        *("kind", "weight", "id", "tools", "chat_template_kwargs", "messages", "prompt"),
        *("completion", "solution", "instruction", "input", "output", "system", "history"),
    )
)
"""Columns (by our names) that are part of the conversation or of the record, and no facts."""

MARKS = tuple(
    dict.fromkeys(marks for kind in FEEDBACK.values() if not kind.weak for marks in kind.marks)
)
"""Groups of columns that speak of a response."""

FEEDBACK_COLUMNS = tuple(column for kind in FEEDBACK.values() for column in kind.reads)

JUDGED_BY = tuple(
    column for kind in FEEDBACK.values() if ("completion",) in kind.marks for column in kind.reads
)
"""Columns (by our names) that say how good the one response of a row is."""

UNION = frozenset(("messages", "conversations", "chosen", "rejected", "completions", "text"))
"""Columns (by our names) that are null in the rows of other kinds, where one table holds many."""


BESIDE_PLAIN = (
    "beside plain text, which no chat template renders: give messages, or set as_messages: true"
)

ODD = FOREIGN | MEDIA
"""Columns that few rows have, and that are looked at where one has."""


class NoFeedback(Exception):
    """The row holds nothing that makes a record; record_of says so with the row's columns."""


def in_union(column: str, union: bool) -> bool:
    """Of a row alone: its null says nothing if it has columns of other kinds that are null as well."""
    return union


def record_of(
    row: Mapping[str, Any],
    stream: Stream,
    where: str,
    unread: tuple[str, ...] = (),
    blank: Callable[[str, bool], bool] = in_union,
) -> Record:
    """The record that `row` states; RowError with one sentence otherwise.

    `where` names the row and becomes the record's id if it has none of its own. `unread` are
    columns that the reader left on disk: they serve only to say "found ..." and "did you mean".
    `blank`: whether a null in a column of feedback (by the source's name) only means that the row is
    of another kind; it is told whether the row looks like one of a table of many kinds.
    """
    names = stream.names
    found = {names[c]: value for c, value in row.items() if value is not None and c in names}
    more = len(found) < len(row)
    unfold(found)
    if "instruction" in found:
        refuse_question(row, names, unread)
        read_alpaca(found)
    elif found.get("system"):
        read_system(found)
    try:
        kind = _kind(found, row, stream)
    except NoFeedback:
        raise RowError(no_feedback(row, names, unread)) from None
    if not ODD.isdisjoint(row):
        refuse_media(row)
        if kind == "demonstration":
            _refuse_foreign(row)
    if stream.kind is None and "kind" not in found and stream.reward is None:
        refuse_beside(kind, found, row, names, unread)
    if more and "kind" not in found:
        null = _null_feedback(kind, row, stream, blank)
        kind = kind if null is None else _unjudged(null, stream)
    named = NamedRow(found, row, stream.ratings or {}, stream.score_range)
    try:
        prompt, completions, scores = FEEDBACK[kind].parts(named)
    except MissingColumn as missing:
        raise RowError(missing_column(str(missing), kind, row, names, unread)) from None
    if stream.wishes:
        prompt, completions = in_prompt(prompt, completions, wishes_of(row, stream.wishes))
    return Record(
        kind,
        prompt,
        completions,
        scores,
        row_weight(found["weight"]) if "weight" in found else 1.0,
        stream.name,
        _id(found["id"], where) if "id" in found else where,
        _template(found, kind, (completions or (prompt,))[0], stream),
        *((_solution(named), _facts(named, names)) if FEEDBACK[kind].asked else ((), {})),
        str(found["annotator"]) if "annotator" in found else None,
    )


def _refuse_foreign(row: Mapping[str, Any]) -> None:
    for column in FOREIGN.intersection(row):
        if isinstance(row[column], (bool, str, list, tuple)):
            raise RowError(
                f"found `{column}`, which says how good the response is and is not read: "
                "`onestage convert FILE rows.jsonl` makes rows of it"
            )


def _kind(found: Mapping[str, Any], row: Mapping[str, Any], stream: Stream) -> Kind:
    if "kind" in found:
        return stated_kind(found["kind"])
    if stream.kind is not None:
        return stream.kind
    present = tuple(found)
    if stream.ratings and "completion" in found:
        rated = any(row.get(column) is not None for column in stream.ratings)
        if rated or "label" not in found:
            present += ("score",)
    # `messages` may only repeat the chosen conversation, as in UltraFeedback binarized
    if "chosen" in found and found.get("messages") == found["chosen"]:
        present = tuple(name for name in present if name != "messages")
    return inferred_kind(present)


def _null_feedback(
    kind: Kind, row: Mapping[str, Any], stream: Stream, blank: Callable[[str, bool], bool]
) -> str | None:
    """The source's column of feedback that is null beside a response, if there is one.

    A row that would be a demonstration for it is none where the column means this row. One of a kind
    that needs the feedback (by the stream's `kind` or `ratings`) is not judged in any case.
    """
    names = stream.names
    nulls = [column for column, value in row.items() if value is None]
    if kind in ("score", "label"):
        needed = (stream.ratings or {}) if kind == "score" else {}
        if not needed.keys() <= row.keys():
            return None  # a column that is missing is a mistake, and said to be one
        return next((c for c in nulls if c in needed or names.get(c) == kind), None)
    if kind != "demonstration" or stream.kind is not None:
        return None
    union = any(names.get(column) in UNION for column in nulls)
    judging = (column for column in nulls if names.get(column) in JUDGED_BY)
    return next((column for column in judging if not blank(column, union)), None)


def _unjudged(column: str, stream: Stream) -> Kind:
    """The kind of a row whose feedback is null, as the stream has it; RowError where it is left out."""
    if stream.unlabelled == "demonstration":
        return "demonstration"
    raise RowError(
        f"`{column}` is null: nobody judged this response; unlabelled: demonstration imitates such "
        "responses, and so does `kind` in a row",
        unlabelled=stream.unlabelled == "drop",
    )


@lru_cache(maxsize=4096)
def inferred_kind(present: tuple[str, ...]) -> Kind:
    """The one kind that these columns (by our names) speak of; cached, as files repeat themselves.

    Raises RowError when they speak of two, or when feedback beside them would be left unread;
    NoFeedback when they speak of none.
    """
    readings = [
        (", ".join(f"`{column}`" for column in marks if column in present), _meant(marks, present))
        for marks in MARKS
        if any(column in present for column in marks)
    ]
    if len(readings) > 1:
        found = " and ".join(f"{columns} ({kinds[0]})" for columns, kinds in readings)
        raise RowError(f"found {found} in one row: set `kind` to say which is meant")
    if not readings:
        return _weak_kind(present)
    columns, kinds = readings[0]
    if len(kinds) > 1:
        both = sorted(column for kind in kinds for column in FEEDBACK[kind].reads)
        raise RowError(
            f"found both {' and '.join(f'`{column}`' for column in both)} beside {columns}: "
            f"set `kind` to {' or '.join(sorted(kinds))}"
        )
    _refuse_unread(kinds[0], columns, present)
    return kinds[0]


def _meant(marks: tuple[str, ...], present: tuple[str, ...]) -> list[Kind]:
    """Of the kinds with these marks: those whose feedback is there, else the one that needs none."""
    sharing = [name for name, kind in FEEDBACK.items() if marks in kind.marks]
    told = [name for name in sharing if any(c in present for c in FEEDBACK[name].reads)]
    return told or [name for name in sharing if not FEEDBACK[name].reads] or sharing


def _weak_kind(present: tuple[str, ...]) -> Kind:
    for name, kind in FEEDBACK.items():
        marks = [column for group in kind.marks for column in group if column in present]
        if not kind.weak or not marks or not all(column in present for column in kind.needs):
            continue
        _refuse_shunned(name, kind, marks[0], present)
        _refuse_unread(name, ", ".join(f"`{column}`" for column in marks), present)
        return name
    raise NoFeedback


def _refuse_shunned(name: Kind, kind: FeedbackKind, column: str, present: tuple[str, ...]) -> None:
    beside = " and ".join(f"`{shunned}`" for shunned in kind.shuns if shunned in present)
    if beside:
        raise RowError(
            f"found {beside} beside `{column}`: set `kind` to {name}, or "
            f"set columns: {{completion: {column}}} if it is the response"
        )


def _refuse_unread(name: Kind, columns: str, present: tuple[str, ...]) -> None:
    for unread in FEEDBACK_COLUMNS:
        if unread in present and unread not in FEEDBACK[name].reads:
            owner = next(kind for kind in FEEDBACK.values() if unread in kind.reads)
            raise RowError(
                f"found `{unread}` beside {columns}, where it has no meaning: set `kind` to {name} "
                f"to leave it out, or give the columns of the kind meant "
                f"({unread} belongs to {', '.join(owner.needs)})"
            )


def read_alpaca(found: dict[str, Any]) -> None:
    """Lets `instruction` (+ `input`) stand for `prompt`, and `output` for `completion`.

    `system` and `history` begin a conversation, which makes the prompt a list of messages.
    Where `output` is the only response, the instruction is its prompt even beside a `prompt`
    column, which in published Alpaca sets is a rendered copy that may hold the output itself.
    """
    answers = "output" in found and "completion" not in found
    if "prompt" in found and not answers:
        return
    instruction = text_of(found["instruction"], "instruction")
    details = text_of(found.get("input", ""), "input")
    asked = f"{instruction}\n\n{details}" if details.strip() else instruction
    before = alpaca_turns(found.get("system"), found.get("history"))
    found["prompt"] = [*before, {"role": "user", "content": asked}] if before else asked
    if answers:
        found["completion"] = found["output"]


def _id(value: object, where: str) -> str:
    # As pandas writes numbers of a column in which some are missing.
    value = int(value) if isinstance(value, float) and value.is_integer() else value
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        return text_of(str(value), "id") or where
    raise RowError(f"`id` must be text or an integer, found {shown(value)}")


def _template(found: Mapping[str, Any], kind: Kind, text: Turns, stream: Stream) -> dict[str, Any]:
    """What the chat template is given beyond the messages; RowError where there will be none."""
    if "tools" not in found and "chat_template_kwargs" not in found:
        return {}
    template = arguments_of(found)
    plain = isinstance(text, str) and (not stream.as_messages or FEEDBACK[kind].layout == "windows")
    if template and plain:
        what = "tools" if "tools" in template else "chat_template_kwargs"
        raise RowError(f"found `{what}` {BESIDE_PLAIN}")
    return template


def arguments_of(found: Mapping[str, Any]) -> dict[str, Any]:
    """`tools` and `chat_template_kwargs` together. `tools` may be JSON, as in Parquet."""
    arguments = found.get("chat_template_kwargs", {})
    if not isinstance(arguments, Mapping):
        raise RowError(f"`chat_template_kwargs` must be an object, found {shown(arguments)}")
    template = {name: held for name, held in arguments.items() if held is not None}
    tools = found.get("tools")
    if not tools:
        return template
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except (ValueError, RecursionError) as error:
            raise RowError(f"`tools` must be a list or its JSON: {error}") from None
    if not isinstance(tools, (list, tuple)):
        raise RowError(f"`tools` must be a list of tools, found {shown(tools)}")
    if "tools" in template:
        raise RowError("found `tools` both as a column and in `chat_template_kwargs`")
    return {**template, "tools": tools}


def _solution(row: NamedRow) -> tuple[str, ...]:
    """Sentences of the worked solution: a list as it is, a text cut at lines and sentence ends."""
    given = row.found.get("solution")
    if given is None:
        return ()
    if isinstance(given, str):
        return tuple(sentences(text_of(given, "solution")))
    if not isinstance(given, (list, tuple)) or not all(isinstance(part, str) for part in given):
        raise RowError(f"`solution` must be a text or a list of sentences, found {shown(given)}")
    found = tuple(text_of(part, "solution") for part in given if part)
    if "completion" in row.found and isinstance(row.found["completion"], str):
        whole = "".join(found)
        if not row.found["completion"].startswith(whole):
            raise RowError("`completion` must begin with the sentences of `solution`")
    return found


def _facts(row: NamedRow, names: Mapping[str, str]) -> dict[str, Any]:
    """Everything a reward may look at, under our names where we have one."""
    facts = {names.get(column, column): value for column, value in row.raw.items()}
    return {
        name: without_nulls(value)
        for name, value in facts.items()
        if name not in SPOKEN and value is not None
    }
