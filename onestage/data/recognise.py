"""Whose format rows are in, and what to write so that they can be read."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from typing import Any

import yaml

from onestage.data._row_advice import RATERS, SHOWN_COLUMNS, SYSTEMS, has_twin, meant, words_of
from onestage.data.formats import PLUGINS, Format
from onestage.data.kinds import FEEDBACK, Kind
from onestage.data.raw import RawRow
from onestage.data.reading import raw_rows, read
from onestage.data.record import Refusal
from onestage.data.rows import FEEDBACK_COLUMNS
from onestage.data.stream import Stream

LOOKED_AT = 200
"""Rows of a file by which it is judged."""

TRIED: tuple[Kind, ...] = ("pair", "group", "score", "label", "demonstration", "text")
"""Kinds that a file may hold under other names, those that need most first."""

JUDGING = frozenset(
    (
        *("feedback", "verdict", "judgement", "judgment", "sentiment", "vote", "votes", "thumb"),
        *("thumbs", "disliked", "downvoted", "rejected", "flagged", "toxic", "toxicity", "harm"),
        *("harmful", "unsafe", "quality", "helpfulness", "truthfulness", "pref", "preference"),
    )
)
"""Words in the names of columns that may say how good a response is."""

ASKED = frozenset(
    (
        *("context", "passage", "article", "document", "body", "background", "premise", "facts"),
        *("choices", "options", "history", "input", "inputs", "system", "schema", "table"),
    )
)
"""Words in the names of columns that may be a part of what is asked."""

PROBLEMS: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "countdown": lambda row: "target" in row and ("nums" in row or "numbers" in row),
    "gsm8k": lambda row: "question" in row and "\n#### " in str(row.get("answer")),
    "math": lambda row: "problem" in row and "\\boxed" in str(row.get("solution")),
}
"""How rows look of which `onestage problems` makes problems, by its command; rows without a prompt."""


def formats_of(row: Mapping[str, Any]) -> list[str]:
    """The formats that recognise a row: none, one, or several that would make different things of it."""
    return [name for name, form in _formats() if _recognised(form, row)]


def advice(stream: Stream) -> list[str]:
    """What to type for rows that are not read as they stand, in lines; none where they are.

    For a format that must be converted the command; where other names suffice, one whole block of
    `data` to paste, tried on the first rows.
    """
    rows = [
        row for row in islice(raw_rows(stream, every=True), LOOKED_AT) if isinstance(row, RawRow)
    ]
    found = Counter(name for row in rows for name in formats_of(row.columns))
    told = [
        f"{count} of the first {len(rows)} rows are {name} rows" for name, count in found.items()
    ]
    options = dict(PLUGINS.find(next(iter(found))).stream) if len(found) == 1 else {}
    form = make_format(next(iter(found))) if options else None
    whole = form is not None and all(form.stands(row.columns) for row in rows)
    if whole and _read(stream, options):
        return [*told, *_block(stream, options)]
    stands = _as_it_stands(stream)
    problems = _problems(stream, rows, stands)
    if problems:
        return problems
    if found:
        return [*told, f"they are read after: {_command(stream, found)}"]
    if stands:
        return []
    renamed = next((one for one in _renamings(stream, rows) if _read(stream, one)), {})
    if not any(renamed.values()):
        return []
    reading = read(Stream(**_given(stream), **renamed))
    for _ in islice(reading, LOOKED_AT):
        pass
    unused = reading.unused()
    return [
        *_unheard(stream, renamed, unused),
        *_unsaid(reading.kinds, list(reading.columns), unused),
        *_block(stream, renamed, list(unused)),
    ]


def _unheard(stream: Stream, options: Mapping[str, Any], unused: Mapping[str, str]) -> list[str]:
    """What is said of columns that look like feedback and would be left out."""
    return [
        f"column {c!r} looks like `{ours}` and is left out: {_reason(stream, options, ours, c)}"
        for c, ours in unused.items()
        if ours in FEEDBACK_COLUMNS
    ]


def _unsaid(
    kinds: Collection[Kind], columns: Sequence[str], unused: Mapping[str, str]
) -> Iterator[str]:
    """What is said of columns that would be left out and may judge the response, or be a part of what is
    asked; and of problems whose solutions might be meant to be imitated."""
    if "check" in kinds:
        if "solution" in columns:
            yield (
                "they are problems, which the model answers itself; to imitate their solutions, set "
                "columns: {completion: solution} beside the prompt's"
            )
        return
    imitated = any(FEEDBACK[kind].scale == "none" and not FEEDBACK[kind].paired for kind in kinds)
    for column in (c for c, ours in unused.items() if ours not in FEEDBACK_COLUMNS):
        words = words_of(column) | {column.lower()}
        if words & JUDGING and imitated:
            yield (
                f"column {column!r} may judge the response and is left out, so that every response is "
                "imitated: write what it says as `label` (true or false) or as `score`"
            )
        elif words & ASKED or (len(column) == 1 and has_twin(column, columns)):
            yield (
                f"column {column!r} may be a part of what is asked and is left out: write it into the "
                "column of the prompt"
            )


def _reason(stream: Stream, options: Mapping[str, Any], ours: str, theirs: str) -> str:
    """Why rows are refused where a column is taken for one of feedback."""
    columns = {**options.get("columns", {}), ours: theirs}
    items = islice(read(Stream(**_given(stream), columns=columns)), LOOKED_AT)
    return next(
        (one.reason for one in items if isinstance(one, Refusal)), "its rows say other things"
    )


@cache
def make_format(name: str) -> Format:
    """The format of a name, with its usual options."""
    return PLUGINS.make(name)


@cache
def _formats() -> list[tuple[str, Format]]:
    return [(name, make_format(name)) for name in PLUGINS.names()]


def _recognised(form: Format, row: Mapping[str, Any]) -> bool:
    try:
        return form.recognises(row)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return False


def _problems(stream: Stream, rows: list[RawRow], stands: bool) -> list[str]:
    """The command that makes problems of rows whose answers a checker knows how to judge. stands: they
    are read as they are, too."""
    how = "can be made" if stands else "are"
    then = "by" if stands else "read after"
    for checker, told in PROBLEMS.items():
        count = sum(told(row.columns) and "prompt" not in row.columns for row in rows)
        if rows and count * 2 > len(rows):
            bare = stream.model_copy(update={"kind": None, "columns": {}, "score_range": (0, 1)})
            command = ["onestage", "problems", checker, str(stream.path)]
            command += ["--out", f"{stream.name}.problems.jsonl", *flags(bare)]
            return [
                f"{count} of the first {len(rows)} rows {how} problems of {checker}, {then}: "
                f"{shlex.join(command)}"
            ]
    return []


def _as_it_stands(stream: Stream) -> bool:
    """Whether most of the first rows are read, and none of their columns looks like unread feedback."""
    reading = read(stream)
    items = list(islice(reading, LOOKED_AT))
    refused = sum(isinstance(one, Refusal) and not one.tie for one in items)
    return refused * 2 < len(items) and not set(reading.unused().values()) & set(FEEDBACK_COLUMNS)


def _command(stream: Stream, found: Iterable[str]) -> str:
    """What converts a file, told of it what this command was told. found: the formats of its rows."""
    plain: dict[str, Any] = {"kind": None}
    if any(make_format(name).scaled for name in found):
        plain["score_range"] = (0, 1)
    told = flags(stream.model_copy(update=plain))
    return shlex.join(["onestage", "convert", str(stream.path), f"{stream.name}.rows.jsonl", *told])


def flags(stream: Stream) -> list[str]:
    """The words of a command that say of a file what a stream says of it."""
    words = []
    for ours, theirs in stream.columns.items():
        words += ["--column", f"{ours}={theirs}"]
    if stream.score_range != (0, 1):
        ends = (str(end).removesuffix(".0") for end in stream.score_range)
        words += ["--score-range", ",".join(ends)]
    for name in ("kind", "encoding", "delimiter", "subset"):
        value = getattr(stream, name)
        words += [f"--{name}", str(value)] if value else []
    return words


def _read(stream: Stream, options: Mapping[str, Any]) -> bool:
    """Whether most of the first rows can be read so."""
    items = list(islice(read(Stream(**{**_given(stream), **options})), LOOKED_AT))
    return sum(isinstance(one, Refusal) for one in items) * 2 < len(items)


def _given(stream: Stream) -> dict[str, Any]:
    """Where a stream's rows are, and how they are written."""
    written = {"encoding": stream.encoding, "delimiter": stream.delimiter}
    return {"name": stream.name, "path": stream.path, **written}


def _renamings(stream: Stream, rows: list[RawRow]) -> Iterator[dict[str, Any]]:
    """Options that may make the rows readable, those of the kinds that need most columns first."""
    columns = list(dict.fromkeys(column for row in rows for column in row.columns))
    for kind in (*_asked(columns), *TRIED):
        needs = FEEDBACK[kind].needs
        named = dict(stream.columns) | {one: one for one in needs if one in columns}
        if (
            "instruction" in columns
        ):  # which stands for the prompt, with `input`, `system` and `history`
            named.setdefault("prompt", "prompt")
        for column in columns:
            ours = meant(column, [one for one in needs if one not in named])
            if ours and column not in named.values() and not has_twin(column, columns):
                named[ours] = column
        spoken = next((column for column in columns if column.lower() in SYSTEMS), None)
        if spoken and "system" not in columns and kind != "text":
            named["system"] = spoken
        judges = [column for column in columns if column.lower() in RATERS]
        if judges and (FEEDBACK[kind].scale != "none" or FEEDBACK[kind].paired):
            named["annotator"] = judges[0]
        if set(needs) <= named.keys():
            options: dict[str, Any] = {"columns": {o: t for o, t in named.items() if o != t}}
            graded = next((one for one in ("score", "scores") if one in needs), None)
            bounds = _range(rows, named[graded]) if graded else None
            yield {**options, **({"score_range": list(bounds)} if bounds else {})}


def _asked(columns: Sequence[str]) -> tuple[Kind, ...]:
    """The kind of rows whose answer is there to be compared with: a `problem`'s, or one that stands
    beside a solution."""
    asked = "answer" in columns and ("solution" in columns or "problem" in columns)
    return ("check",) if asked else ()


def _range(rows: list[RawRow], column: str) -> tuple[float, float] | None:
    """The whole numbers around what a column of scores holds, unless it is all in [0, 1]."""
    held = [row.columns.get(column) for row in rows]
    flat = [v for value in held for v in (value if isinstance(value, list) else [value])]
    numbers = []
    for value in flat:
        try:
            numbers.append(float(value))  # type: ignore[arg-type]
        except (TypeError, ValueError):
            continue
    numbers = [one for one in numbers if math.isfinite(one)]
    if not numbers or (min(numbers) >= 0 and max(numbers) <= 1):
        return None
    low, high = math.floor(min(numbers)), math.ceil(max(numbers))
    return (low, high) if low < high else (min(0, low), max(0, high))


def _block(stream: Stream, options: Mapping[str, Any], left: Sequence[str] = ()) -> list[str]:
    written = {"encoding": stream.encoding, "delimiter": stream.delimiter}
    item = {"name": stream.name, "path": str(stream.path)}
    item |= {key: value for key, value in {**written, **options}.items() if value}
    text = yaml.safe_dump({"data": [item]}, sort_keys=False, default_flow_style=None, width=1000)
    note = "  # as far as the first rows go; say what your scores can be"
    lines = [
        line + note if "score_range" in line and "ratings" not in options else line
        for line in text.splitlines()
    ]
    some = ", ".join(map(repr, left[:SHOWN_COLUMNS])) + (", ..." if left[SHOWN_COLUMNS:] else "")
    without = [f"  # without the columns {some}"] if left else []
    return ["they are read with this in the recipe:", *lines, *without]
