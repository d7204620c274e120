"""One row of a file -> one `Record`, or a `RowError` that says what was found and what is allowed.

| columns (strings or message lists)                                   | kind          |
|----------------------------------------------------------------------|---------------|
| `messages` · `conversations` · `prompt`, `completion`                | demonstration |
| `prompt`, `completion`, `score` (or the source's rating columns)     | score         |
| `prompt`, `completion`, `label`                                      | label         |
| `prompt`, `chosen`, `rejected` (+ `chosen_score`, `rejected_score`)  | pair          |
| `prompt`, `completions`, `scores`                                    | group         |
| `text`                                                               | text          |
| `prompt`, `answer` or other facts (+ `solution`, `completion`)       | check         |

Everywhere: `kind`, `weight`, `id`, `tools`, `chat_template_kwargs`. `instruction` (+ `input`)
stands for `prompt` and `output` for `completion`, as in Alpaca. Other columns are ignored, as
public data sets have many; feedback that would be ignored is refused (see `kinds.py`). Of a `check` row
they are its facts, which rewards look at.

What only a checkable problem has: a worked solution in sentences, and the facts rewards look at.

The sentence about a missing column: what a row needs, what it has, what is probably meant.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onestage.data.kinds import (
    NEEDS,
    NoFeedback,
    checked_range,
    inferred_kind,
    repeats_chosen,
    row_weight,
    stated_kind,
)
from onestage.data.messages import text_of, without_nulls
from onestage.data.parts import PARTS_OF, MissingColumn, Row
from onestage.data.record import Kind, Record, RowError, Tie, shown

__all__ = ["Columns", "RowError", "Tie", "record_of"]


NAMES = (
    *("kind", "weight", "id", "tools", "chat_template_kwargs"),
    *("messages", "conversations", "prompt", "completion", "score", "label"),
    *("chosen", "rejected", "chosen_score", "rejected_score", "completions", "scores"),
    *("text", "answer", "instruction", "input", "output", "system", "history"),
    *("solution", "target"),
)
"""Our names for columns. A row's `source` column is not among them: the stream's name is it."""


@dataclass(frozen=True, slots=True)
class Columns:
    """How to understand the rows of one source. ValueError when this cannot be understood."""

    source: str
    """The stream's name."""
    kind: Kind | None = None
    """What every row is, unless it has a `kind` of its own; None infers it row by row."""
    rename: Mapping[str, str] = field(default_factory=dict)
    """Our name -> the file's column: {"prompt": "question"}."""
    score_range: tuple[float, float] = (0.0, 1.0)
    """Range of every score (or of every rating), mapped linearly to [0, 1]."""
    ratings: Mapping[str, float] = field(default_factory=dict)
    """The file's rating columns and their weights, which make the score of a completion."""
    facts: bool = False
    """Whether rows may be `check` rows whose other columns a reward looks at."""
    names: Mapping[str, str] = field(init=False, repr=False, compare=False)
    """The file's column -> our name, worked out once for all rows."""

    def __post_init__(self) -> None:
        if self.kind is not None:
            stated_kind(self.kind)
        for ours in self.rename:
            if ours not in NAMES:
                near = nearest_name(ours, NAMES)
                hint = f"did you mean {near!r}?" if near else "allowed: " + ", ".join(NAMES)
                raise ValueError(f"columns of {self.source!r}: no column {ours!r} to name; {hint}")
        taken = list(self.rename.values())
        twice = {column for column in taken if taken.count(column) > 1}
        if twice:
            raise ValueError(f"columns of {self.source!r}: {min(twice)!r} is given two meanings")
        for column, weight in self.ratings.items():
            if not 0 < abs(weight) < float("inf"):
                raise ValueError(f"rating {column!r} must have a finite weight, found {weight!r}")
        own = [name for name in NAMES if name not in (*self.rename, *taken, *self.ratings)]
        if self.ratings and "score" in own:
            own.remove("score")
        names = {column: ours for ours, column in self.rename.items()} | {n: n for n in own}
        object.__setattr__(self, "score_range", checked_range(self.score_range))
        object.__setattr__(self, "names", names)

    @property
    def reads(self) -> frozenset[str]:
        """The file's columns that can matter: a reader may leave the others on disk. Empty: all do."""
        if self.facts or self.kind == "check":
            return frozenset()
        return frozenset((*self.names, *self.ratings))


def record_of(
    row: Mapping[str, Any], columns: Columns, where: str, unread: tuple[str, ...] = ()
) -> Record:
    """The record that `row` states; RowError with one sentence otherwise, Tie for a pair's tie.

    `where` names the row and becomes the record's id if it has none of its own. `unread` are
    columns that the reader left on disk: they serve only to say "found ..." and "did you mean".
    """
    names = columns.names
    found = {names[c]: value for c, value in row.items() if value is not None and c in names}
    if "instruction" in found:
        _read_alpaca(found)
    try:
        kind = _kind(found, row, columns)
    except NoFeedback:
        raise RowError(no_feedback(row, names, unread)) from None
    parts = Row(found, row, columns.ratings, columns.score_range)
    try:
        prompt, completions, scores = PARTS_OF[kind](parts)
    except MissingColumn as missing:
        raise RowError(missing_column(str(missing), kind, row, names, unread)) from None
    return Record(
        kind,
        prompt,
        completions,
        scores,
        row_weight(found["weight"]) if "weight" in found else 1.0,
        columns.source,
        _id(found["id"], where) if "id" in found else where,
        _template(found) if "tools" in found or "chat_template_kwargs" in found else {},
        *((solution_of(parts), facts_of(parts, names)) if kind == "check" else ()),
    )


def _kind(found: Mapping[str, Any], row: Mapping[str, Any], columns: Columns) -> Kind:
    if "kind" in found:
        return stated_kind(found["kind"])
    if columns.kind is not None:
        return columns.kind
    present = tuple(found)
    if columns.ratings and "completion" in found:
        rated = any(row.get(column) is not None for column in columns.ratings)
        if rated or "label" not in found:
            present += ("score",)
    if "messages" in found and repeats_chosen(found):
        present = tuple(name for name in present if name != "messages")
    return inferred_kind(present)


def _read_alpaca(found: dict[str, Any]) -> None:
    """Lets `instruction` (+ `input`) stand for `prompt`, and `output` for `completion`.

    Where `output` is the only response, the instruction is its prompt even beside a `prompt`
    column, which in published Alpaca sets is a rendered copy that may hold the output itself.
    """
    answers = "output" in found and "completion" not in found
    if "prompt" in found and not answers:
        return
    for name in ("system", "history"):
        if found.get(name):
            raise RowError(f"found `{name}` beside `instruction`: give such rows as `messages`")
    instruction = text_of(found["instruction"], "instruction")
    details = text_of(found.get("input", ""), "input")
    found["prompt"] = f"{instruction}\n\n{details}" if details.strip() else instruction
    if answers:
        found["completion"] = found["output"]


def _id(value: object, where: str) -> str:
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        return str(value) or where
    raise RowError(f"`id` must be text or an integer, found {shown(value)}")


def _template(found: Mapping[str, Any]) -> dict[str, Any]:
    """What the chat template is given beyond the messages. `tools` may be JSON, as in Parquet."""
    arguments = found.get("chat_template_kwargs", {})
    if not isinstance(arguments, Mapping):
        raise RowError(f"`chat_template_kwargs` must be an object, found {shown(arguments)}")
    template = without_nulls(arguments)
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
    return {**template, "tools": without_nulls(tools)}


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


ALIASES: Mapping[str, tuple[str, ...]] = {
    "completion": ("response", "answer", "output", "reply"),
    "prompt": ("question", "query", "instruction", "input"),
    "messages": ("conversation", "dialogue"),
    "chosen": ("preferred", "accepted", "winner"),
    "rejected": ("dispreferred", "loser"),
    "completions": ("responses", "answers", "outputs"),
    "score": ("rating", "reward"),
    "scores": ("ratings", "rewards"),
    "label": ("thumbs_up", "liked"),
    "text": ("content", "document"),
}
"""What other data sets call our columns."""


SHOWN_COLUMNS = 12


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
    needed = NEEDS[kind] if missing in NEEDS[kind] else (*NEEDS[kind], missing)
    needs = ", ".join(f"`{name}`" for name in needed)
    needs += " (or `messages`)" if kind == "demonstration" else ""
    called = f"`{missing}`" if column == missing else f"`{missing}` (here {column!r})"
    state = "null" if column in row else "missing"
    spare = [name for name in _present(row, unread) if names.get(name) not in needed]
    return (
        f"a {kind} row needs {needs}; {called} is {state}, found {_listed(row, unread)}"
        f"{_hint(((missing, column),), spare)}"
    )


def no_feedback(row: Mapping[str, Any], names: Mapping[str, str], unread: Sequence[str]) -> str:
    """A row without any column that speaks of a response."""
    column_of = {ours: theirs for theirs, ours in names.items()}
    wanted = [(ours, column_of.get(ours, ours)) for ours in ALIASES if ours not in ("prompt",)]
    return (
        "a row needs `messages`, or `prompt` with `completion`, with `chosen` and `rejected` or "
        "with `completions` and `scores`, or with `answer` or `solution`, or `text`; "
        f"found {_listed(row, unread)}"
        f"{_hint(wanted, _present(row, unread))}"
    )


def _present(row: Mapping[str, Any], unread: Sequence[str]) -> list[str]:
    return [*(column for column, value in row.items() if value is not None), *unread]


def _listed(row: Mapping[str, Any], unread: Sequence[str]) -> str:
    present = _present(row, unread)
    shown = ", ".join(repr(column) for column in present[:SHOWN_COLUMNS])
    more = len(present) - SHOWN_COLUMNS
    return (shown or "no column that is not null") + (f" and {more} more" if more > 0 else "")


def _hint(wanted: Sequence[tuple[str, str]], candidates: Sequence[str]) -> str:
    """Slips of the pen first, for all wanted columns; then other data sets' names for them."""
    for ours, column in wanted:
        near = nearest_name(column, candidates)
        if near:
            return f"; did you mean columns: {{{ours}: {near}}}?"
    for ours, _ in wanted:
        for alias in ALIASES.get(ours, ()):
            near = nearest_name(alias, candidates)
            if near:
                return f"; did you mean columns: {{{ours}: {near}}}?"
    return ""


_FORMULA = re.compile(
    r"\$\$.*?\$\$|(?<!\\)\$(?!\s)[^$\n]*?(?<![\\\s])\$(?!\d)|\\\[.*?\\\]|\\\(.*?\\\)"
    r"|\\begin\{(?P<name>[a-z]+\*?)\}.*?\\end\{(?P=name)\}|\[asy\].*?\[/asy\]",
    re.DOTALL,
)


_END = re.compile(r"""[ \t]*\n\s*|[.!?]+["'”’)\]]*[ \t]+(?=["'“‘(\[]*[A-Z0-9$\\])""")  # noqa: RUF001


_SHORT = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|cf|vs|viz|approx|resp|Mr|Mrs|Ms|Dr|Prof|St|Sr|Jr|Fig|Figs|Eq|Eqs|Eqn|No|Nos"
    r"|Thm|Lem|Ch|Sec|p|pp|ft|oz|lb|lbs|in|hr|hrs|min)|\b[A-Z]|^\s*\d+)\Z",
    re.MULTILINE,
)


def sentences(text: str) -> list[str]:
    """The sentences of a text, each with the white space behind it."""
    formulas = [match.span() for match in _FORMULA.finditer(text)]
    found, start, next_formula = [], 0, 0
    for end in _END.finditer(text):
        while next_formula < len(formulas) and formulas[next_formula][1] <= end.start():
            next_formula += 1
        within = next_formula < len(formulas) and formulas[next_formula][0] < end.start()
        piece = text[start : end.start()]
        short = end.group().startswith(".") and _SHORT.search(piece[-24:])
        if within or not piece.strip() or (short and "\n" not in end.group()):
            continue
        found.append(text[start : end.end()])
        start = end.end()
    if text[start:].strip():
        found.append(text[start:])
    elif found:
        found[-1] += text[start:]
    return found
