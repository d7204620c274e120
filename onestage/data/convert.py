"""Rows in other people's formats become rows of ours in a file; what is left out stands beside it."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from onestage.data._row_advice import unused_columns
from onestage.data._row_error import RowError
from onestage.data.annotators import Rated, Raters
from onestage.data.calibration import Calibration, calibrate
from onestage.data.formats import Format
from onestage.data.kinds import Kind
from onestage.data.raw import RawRow
from onestage.data.reading import Reading, raw_rows
from onestage.data.recognise import formats_of, make_format
from onestage.data.record import Record, Refusal
from onestage.data.rows import in_union, record_of
from onestage.data.scores import DECIMAL
from onestage.data.stream import Stream
from onestage.data.writing import row_of, rows_file
from onestage.runfolder import json_line
from onestage.runfolder.disk import whole_file

SHOWN = 3
"""Rows that are shown before and after."""

CARRIED = ("weight", "tools", "chat_template_kwargs", "id")
"""Columns of ours that stand beside a row of any format, and that its rows get where it reads none."""

Row = Mapping[str, Any]
Ratings = Literal["mean", "calibrated"]


@dataclass
class Converted:
    """What became of a file."""

    out: Path
    left_out_in: Path
    """Where the rows that were left out are, each with its place and the reason."""
    formats: Counter[str] = field(default_factory=Counter)
    """Rows read, by format; `rows` are ours."""
    written: Counter[Kind] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    """By reason."""
    examples: list[tuple[Row, list[Row]]] = field(default_factory=list)
    """The first rows, and what they became; of rated answers that are made one, a row each."""
    raters: Raters = field(default_factory=Raters)
    calibration: Calibration | None = None
    """Of the raters, where it was asked for."""
    clipped: int = 0
    """Calibrated scores that lay beyond 0 or 1, and were set there."""
    unused: dict[str, str] = field(default_factory=dict)
    """Columns that were not carried over, with the column of ours that each may be meant for, or ""."""


def convert(
    stream: Stream,
    out: Path,
    form: Format | None = None,
    raters: Sequence[str] = (),
    ratings: Ratings = "mean",
) -> Converted:
    """Write a stream's rows as ours, with scores in [0, 1].

    form: of every row; default: the one that recognises it, and rows of ours stay what they are.
    raters: columns that hold what one rater each says of the row's answer. Rows that name their
    `annotator`, and these, become one row an answer (`annotators.py`).
    ratings: how several scores are made one: their `mean`, or `calibrated` for each rater's bias, scale
    and noise (`calibration.py`).

    Raises ValueError, and leaves no file, where no row is left.
    """
    if not out.name.endswith((".jsonl", ".jsonl.gz")):
        raise ValueError(f"{out}: rows are written to a .jsonl or .jsonl.gz file")
    if out.exists() and os.path.realpath(str(stream.path)) == os.path.realpath(out):
        raise ValueError(f"{out}: cannot be read and written at once; give another file")
    name = out.name.removesuffix(".gz").removesuffix(".jsonl")
    beside = out.with_name(f"{name}.left_out.jsonl")
    if os.path.realpath(str(stream.path)) == os.path.realpath(beside):
        raise ValueError(
            f"{out}: what is left out would be written over {stream.path}, which is read; give another"
        )
    if (
        out.exists()
        and Path(os.path.realpath(str(stream.path))) in Path(os.path.realpath(out)).parents
    ):
        raise ValueError(f"{out}: is in the folder that is read; write it elsewhere")
    found = Converted(out, beside)
    beside.unlink(missing_ok=True)
    with ExitStack() as files:
        rows = files.enter_context(rows_file(out))
        left: Any = None
        for item in _Conversion(stream, form, raters, ratings, found):
            if isinstance(item, Mapping):
                rows.write(_line(item))
                continue
            refusal, row = item
            found.left_out[refusal.reason] += 1
            left = left or files.enter_context(whole_file(beside))
            line = {"where": refusal.where, "reason": refusal.reason, "row": row}
            left.write(_line(line))
        if not found.written:
            raise ValueError(_nothing(stream, found))
    return found


def _line(content: Row) -> bytes:
    try:
        return json_line(content).encode("utf-8", "backslashreplace")
    except TypeError:  # a date, say, out of a table: as it is shown
        return _line(json.loads(json.dumps(content, default=str)))


def _nothing(stream: Stream, found: Converted) -> str:
    if not found.left_out:
        return f"{stream.path}: no rows, the source is empty"
    (reason, count), *more = found.left_out.most_common()
    others = f" (and {len(more)} other reasons)" if more else ""
    return f"{stream.path}: no row is left; of {count:,}: {reason}{others}"


class _Conversion:
    """One pass over a stream, in which rows of ours come out, and refusals with the row they are of."""

    def __init__(
        self,
        stream: Stream,
        form: Format | None,
        raters: Sequence[str],
        ratings: Ratings,
        found: Converted,
    ) -> None:
        self.stream, self.form, self.raters, self.found = stream, form, raters, found
        self.ratings = ratings
        # What a format has made has our names, and where it knows the range of its scores, that of ours.
        self.ours = Stream(name=stream.name, path=stream.path)
        self.columns: dict[str, None] = {}
        self.unread: dict[str, None] = {}
        self.reading = Reading(stream)

    def __iter__(self) -> Iterator[Row | tuple[Refusal, Any]]:
        kinds: set[Kind] = set()
        for raw in raw_rows(self.stream, every=True):
            if isinstance(raw, Refusal):
                yield raw, None
                continue
            made: list[Row] = []
            for item in self._items(raw):
                if isinstance(item, Refusal):
                    yield item, raw.columns
                    continue
                row = row_of(item)
                made.append(row)
                kinds.add(item.kind)
                if item.annotator is not None and Raters.takes(item):
                    self.found.raters.add(item, item.annotator)
                    continue
                self.found.written[item.kind] += 1
                yield row
            if made and len(self.found.examples) < SHOWN:
                self.found.examples.append((raw.columns, made))
        if self.ratings == "calibrated":
            self.found.calibration = calibrate(self.found.raters)
        for rated in self.found.raters:
            yield self._one(rated)
        unused = unused_columns(list(self.columns), kinds, self.stream)
        self.found.unused = {
            c: o for c, o in unused.items() if c not in (*self.raters, "annotator")
        } | {column: "" for column in self.unread if column not in unused}

    def _one(self, rated: Rated) -> Row | tuple[Refusal, Any]:
        """The row of an answer that several have rated."""
        fit, record = self.found.calibration, rated.record
        verdict = fit.score(rated) if fit else rated.verdict()
        if fit and verdict is not None and verdict != fit.worth(rated):
            self.found.clipped += 1
        if verdict is None:
            return Refusal(record.id, "its raters are divided: a tie", tie=True), row_of(record)
        if rated.paired:
            sides = record.completions if verdict else record.completions[::-1]
            record = replace(record, completions=sides)
        else:
            record = replace(record, scores=(verdict,))
        self.found.written[record.kind] += 1
        return row_of(record) | rated.agreement()

    def _items(self, raw: RawRow) -> Iterator[Record | Refusal]:
        form = None
        try:
            form = self._form(raw)
            told = _Looked(_renamed(raw.columns, self.stream) if form else raw.columns)
            made = form.rows(told) if form else self._long(raw)
            stream = self._stream(form)
            number = -1
            for number, row in enumerate(made):
                where = f"{raw.where}/{number}" if number else raw.where
                if isinstance(row, RowError):
                    yield _refusal(where, row)
                    continue
                try:
                    blank = in_union if form else self.reading.blank(raw)
                    if form:
                        row = told.carried(row, number)
                        self._refuse_range(form, row)
                    record = record_of(row, stream, where, raw.unread, blank)
                    if form:
                        self._refuse_kind(form, record)
                    yield record
                except RowError as error:
                    yield _refusal(where, error)
            if form:
                theirs = self.stream.columns.values()
                self.unread.update(dict.fromkeys(c for c in told.unread() if c not in theirs))
            if number < 0:
                raise RowError(
                    "makes no row: nothing in it is judged, or there is no text", unlabelled=True
                )
        except RowError as error:
            yield _refusal(raw.where, error)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            if form is None:
                raise
            said = f"{type(error).__name__} {error}"
            yield Refusal(raw.where, f"not a row of {type(form).__name__} after all ({said})")

    def _form(self, raw: RawRow) -> Format | None:
        if self.form is not None:
            self.found.formats[type(self.form).__name__] += 1
            return self.form
        found = [] if self.raters else formats_of(raw.columns)
        if len(found) > 1:
            raise RowError(f"looks like {' and like '.join(found)}: say --from {found[0]}")
        self.found.formats[found[0] if found else "rows"] += 1
        return make_format(found[0]) if found else None

    def _refuse_range(self, form: Format, row: Row) -> None:
        scored = "score" in row or "scores" in row
        if form.scaled and scored and self.stream.score_range != (0, 1):
            raise RowError(
                f"rows of {type(form).__name__} know the range of their ratings: give no score range"
            )

    def _refuse_kind(self, form: Format, record: Record) -> None:
        if self.stream.kind not in (None, record.kind):
            raise RowError(
                f"a row of {type(form).__name__} becomes {record.kind}, not {self.stream.kind}: give "
                "no kind"
            )

    def _stream(self, form: Format | None) -> Stream:
        if form is None:
            return self.stream
        return (
            self.ours
            if form.scaled
            else self.ours.model_copy(update={"score_range": self.stream.score_range})
        )

    def _long(self, raw: RawRow) -> Iterator[Row]:
        """A row of ours; one a rater where each has a column."""
        self.columns.update(dict.fromkeys(raw.columns))
        if not self.raters:
            yield raw.columns
            return
        said = {name: value for name, value in raw.columns.items() if name not in self.raters}
        missing = [name for name in self.raters if name not in raw.columns]
        if missing:
            raise RowError(f"has no column {missing[0]!r}, found {', '.join(raw.columns)}")
        for name in self.raters:
            if raw.columns[name] is not None:
                yield {
                    **said,
                    self._judged(raw.columns[name]): raw.columns[name],
                    "annotator": name,
                }

    def _judged(self, value: Any) -> str:
        """Whether a rating is a score or a label: what the stream says, else as it is written."""
        if self.stream.kind in ("score", "label"):
            return self.stream.kind
        word = isinstance(value, str) and not DECIMAL.fullmatch(value.strip())
        return "label" if word or isinstance(value, bool) else "score"


class _Looked(Mapping[str, Any]):
    """A row in a format of others, that knows which of its columns were looked at."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.read: set[str] = set()

    def __getitem__(self, column: str) -> Any:
        self.read.add(column)
        return self.row[column]

    def __iter__(self) -> Iterator[str]:
        return iter(self.row)

    def __len__(self) -> int:
        return len(self.row)

    def carried(self, made: Row, number: int) -> Row:
        """A row that was made of it, with what stands beside rows of any format. number: of several."""
        beside = {
            name: self.row[name]
            for name in CARRIED
            if self.row.get(name) is not None and name not in made and name not in self.read
        }
        if number and "id" in beside:
            beside["id"] = f"{beside['id']}/{number}"
        return {**made, **beside}

    def unread(self) -> list[str]:
        """The columns that say something, were not looked at and are not carried over."""
        named = {*self.read, *CARRIED}
        return [c for c, value in self.row.items() if value is not None and c not in named]


def _refusal(where: str, error: RowError) -> Refusal:
    return Refusal(where, str(error), tie=error.tie, unlabelled=error.unlabelled)


def _renamed(row: Row, stream: Stream) -> Row:
    """A row under the names that a format knows, where the user says that they are others."""
    if not stream.columns:
        return row
    found = {ours: row[theirs] for ours, theirs in stream.columns.items() if theirs in row}
    # Tools for annotation keep the texts in a mapping of their own.
    for inner in ("fields", "data"):
        texts = row.get(inner)
        if isinstance(texts, Mapping):
            more = {ours: texts[one] for ours, one in stream.columns.items() if one in texts}
            found[inner] = {**texts, **more}
    return {**row, **found}
