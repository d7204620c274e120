"""From a stream to its records: each row becomes a `Record`, or a `Refusal` that says why not."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from onestage.data._row_advice import unused_columns
from onestage.data._row_error import RowError
from onestage.data.files import BATCH_ROWS, data_files, rows_of, skipped_files
from onestage.data.given import GivenRows, refuse_remembered
from onestage.data.hub import is_hub_name, is_saved, load_hub, load_saved, rows_of_dataset
from onestage.data.kinds import Kind
from onestage.data.oddities import oddities
from onestage.data.raw import RawRow, Written
from onestage.data.reach import require_within_reach
from onestage.data.record import Record, Refusal
from onestage.data.rows import JUDGED_BY, record_of
from onestage.data.stream import Stream

FORMAT = b"onestage records 5"
"""Part of every content key: change it when the same rows come to give other records."""

RESPONSES = frozenset(("completion", "output", "messages", "conversations"))
"""Columns (by our names) that hold the one response of a row."""


ANNOTATED = (
    "name their annotator, and each rating is a record of its own; onestage convert makes one row of "
    "all ratings of an answer"
)


class Reading:
    """One pass over a stream: its records and refusals, in order, and what stood beside them."""

    def __init__(
        self,
        stream: Stream,
        rows: Iterator[RawRow | Refusal] | None = None,
        judging: Judging | None = None,
    ) -> None:
        """`rows`: some of the stream's, where others read the rest; `judging`: shared with them."""
        self.stream = stream
        self.columns: dict[str, None] = {}
        """Every column of the rows read so far."""
        self.kinds: set[Kind] = set()
        """Of the records so far."""
        self.noted: Counter[str] = Counter()
        """What is to be known of the records so far, and of how many."""
        self._items = self._walk(raw_rows(stream) if rows is None else rows, rows is not None)
        self._judging = judging or Judging(stream)

    def __iter__(self) -> Iterator[Record | Refusal]:
        return self

    def __next__(self) -> Record | Refusal:
        return next(self._items)

    def unused(self) -> dict[str, str]:
        """Columns that no record was made of, each with ours that it may be meant for, or ""."""
        return unused_columns(list(self.columns), self.kinds, self.stream)

    def notes(self) -> dict[str, int]:
        """What is to be known of records, and of how many."""
        return dict(self.noted)

    def absent(self) -> dict[str, str]:
        """What `columns` renames (our name -> the source's) and no row has."""
        named = self.stream.columns.items()
        return {ours: theirs for ours, theirs in named if theirs not in self.columns}

    def _walk(
        self, rows: Iterator[RawRow | Refusal], empty_is_fine: bool
    ) -> Iterator[Record | Refusal]:
        accepted, empty, stream = 0, not empty_is_fine, self.stream
        for row in rows:
            empty = False
            item = row if isinstance(row, Refusal) else self._record(row)
            yield item
            accepted += isinstance(item, Record)
            if accepted == stream.limit:
                return
        if empty:
            raise ValueError(f"{stream.path}: no rows, the source is empty")

    def _record(self, row: RawRow) -> Record | Refusal:
        self.columns.update(dict.fromkeys((*row.columns, *row.unread)))
        try:
            blank = self.blank(row)
            record = record_of(row.columns, self.stream, row.where, row.unread, blank)
        except RowError as error:
            said = str(error)
            return Refusal(row.where, said, tie=error.tie, unlabelled=error.unlabelled)
        except RecursionError:
            return Refusal(row.where, "nested too deeply to be a row of text")
        self.kinds.add(record.kind)
        self.noted.update(oddities(record, row.columns))
        self.noted.update([ANNOTATED] if record.annotator is not None else [])
        return record.as_messages() if self.stream.as_messages else record

    def blank(self, row: RawRow) -> Callable[[str, bool], bool]:
        """Whether a null in a column of feedback only means that this row is of another kind."""

        def means_another_kind(column: str, union: bool) -> bool:
            return (union or row.in_table) and not self._judges(row, column)

        return means_another_kind

    def _judges(self, row: RawRow, column: str) -> bool:
        """Whether a column of feedback says something of any response of the source that stands in the
        same column as this row's. A source that can only be read through, or that is read a portion at a
        time, is not read for it: there a null always means its row."""
        if passes_by(self.stream) or self.stream.portion:
            return True
        return any(
            (response, column) in self._judging.pairs for response in _held(row, self.stream)
        )


class Judging:
    """Which columns of feedback say something of which response, in all of a stream."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    @cached_property
    def pairs(self) -> frozenset[tuple[str, str]]:
        """Columns of a response (by our names) and of feedback (by the source's) that have a value in
        one row, in a pass of their own over the rows."""
        found: set[tuple[str, str]] = set()
        for row in raw_rows(self.stream):
            if not isinstance(row, Refusal):
                held = _held(row, self.stream)
                judged = [held[ours] for ours in JUDGED_BY if ours in held]
                found.update((a, column) for a in held if a in RESPONSES for column in judged)
        return frozenset(found)


def _held(row: RawRow, stream: Stream) -> dict[str, str]:
    """Our names for what is not null in a row, with the source's."""
    names = stream.names
    return {names[c]: c for c, value in row.columns.items() if value is not None and c in names}


def read(data: Any, **options: Any) -> Reading:
    """Every row of some data, in order; memory does not grow with the number of rows.

        records = read("pairs.jsonl", score_range=(1, 5))
        records = read([{"prompt": "2 + 2 =", "completion": " 4"}])

    data: a file, a folder or glob pattern of files, a folder that `save_to_disk` made, a hub's
    owner/name, a list of dicts, a `datasets.Dataset`, or a `Stream` that says all of it. options: those
    of a `Stream` (`kind`, `columns`, `score_range`, `limit`, ...).

    Raises ValueError at once where the options cannot be honoured or nothing is there to read, and
    while reading when a file turns out to be damaged or all of them are empty. A row that cannot be used
    raises nothing: it comes out as a `Refusal` in its place.
    """
    stream = data if isinstance(data, Stream) and not options else Stream(data, **options)
    return Reading(stream)


def raw_rows(stream: Stream, every: bool = False) -> Iterator[RawRow | Refusal]:
    """The rows as they stand in files, data set or memory; raises as `read` does.

    every: with all columns, those that no kind reads as well.
    """
    place, wanted = stream.path, frozenset[str]() if every else stream.needed
    _refuse_options(stream)
    # A portion does not wait for rows of the next.
    block = min(BATCH_ROWS, stream.portion or BATCH_ROWS)
    if isinstance(place, GivenRows):
        return place.read(stream.name, wanted, block)
    if is_saved(place) or is_hub_name(place):
        name = Path(place).name if is_saved(place) else place
        found = _dataset(stream, place)
        return rows_of_dataset(found, f"{name}/{stream.split}", wanted, block)
    written = Written(stream.encoding, stream.delimiter, stream.subset)
    return chain.from_iterable(rows_of(file, wanted, written) for file in data_files(place))


def skipped(stream: Stream) -> list[str]:
    """Files beside those of rows, where a folder or a pattern was given."""
    place = stream.path
    if isinstance(place, GivenRows) or is_saved(place) or is_hub_name(place):
        return []
    return skipped_files(place)


def content_key(stream: Stream) -> str | None:
    """A hash of the content and of how it is read: equal keys mean equal records.

    Files count by name and bytes, data sets by the fingerprint that `datasets` keeps, rows given in
    Python by their content. None where that cannot be known without reading all of it (a streamed data
    set): then nothing is kept.
    """
    place = stream.path
    _refuse_options(stream)
    if passes_by(stream):
        return None
    digest = hashlib.blake2b(FORMAT, digest_size=16)
    digest.update(_how(stream).encode())
    if isinstance(place, GivenRows):
        digest.update(f"given {place.digest}".encode())
        return digest.hexdigest()
    if is_saved(place) or is_hub_name(place):
        digest.update(_dataset(stream, place)._fingerprint.encode())
        return digest.hexdigest()
    for file in data_files(place):
        with file.path.open("rb") as opened:
            content = hashlib.file_digest(opened, "blake2b").hexdigest()
        digest.update(f"{file.label!r} {content}\n".encode())
    return digest.hexdigest()


def passes_by(stream: Stream) -> bool:
    """Whether the rows can only be read through, not be known or read again before."""
    place = stream.path
    return stream.streaming or (isinstance(place, GivenRows) and place.digest is None)


def _refuse_options(stream: Stream) -> None:
    """ValueError for options that the stream's place has no use for."""
    place, name = stream.path, stream.name
    refuse_remembered(place)
    on_hub = isinstance(place, str) and is_hub_name(place)
    sheets = isinstance(place, str) and place.lower().endswith(".xlsx")
    if stream.subset is not None and not on_hub and not sheets:
        raise ValueError(f"{name}: subset needs a hub data set or a workbook, found {place}")
    if stream.streaming and not on_hub:
        raise ValueError(f"{name}: streaming needs a hub data set, found {place}")
    saved = isinstance(place, str) and is_saved(place)
    if (stream.encoding or stream.delimiter) and (on_hub or saved or isinstance(place, GivenRows)):
        option = "encoding" if stream.encoding else "delimiter"
        raise ValueError(f"{name}: {option} needs a file of text, found {place}")
    if stream.split != "train" and not on_hub and not saved:
        raise ValueError(
            f"{name}: split {stream.split!r} needs a hub or saved data set, found "
            f"{place}: give the rows of that split as the path"
        )


def _dataset(stream: Stream, place: str) -> Any:
    if is_saved(place):
        return load_saved(place, stream.split)
    require_within_reach(f"data {stream.name}", place, "dataset")
    return load_hub(place, stream.subset, stream.split, stream.streaming)


def _how(stream: Stream) -> str:
    return repr(
        (
            *(stream.limit, stream.split, stream.subset, stream.as_messages),
            *(stream.name, stream.kind, sorted(stream.columns.items())),
            *(stream.score_range, sorted((stream.ratings or {}).items())),
            stream.reward is not None,
            stream.unlabelled,
            *((stream.encoding, stream.delimiter) if stream.encoding or stream.delimiter else ()),
            *(("wishes, numbers as such", *stream.wishes) if stream.wishes else ()),
        )
    )
