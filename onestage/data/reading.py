"""From a stream to its records: each row becomes a `Record`, or a `Refusal` that says why not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from onestage.data._row_error import RowError
from onestage.data.files import RawRow, data_files, rows_of
from onestage.data.given import GivenRows, refuse_remembered
from onestage.data.hub import is_hub_name, is_saved, load_hub, load_saved, rows_of_dataset
from onestage.data.record import Record, Refusal
from onestage.data.rows import record_of
from onestage.data.stream import Stream

FORMAT = b"onestage records 1"
"""Part of every content key: change it when the same rows come to give other records."""


def read(data: Any, **options: Any) -> Iterator[Record | Refusal]:
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
    return _records(stream, raw_rows(stream))


def raw_rows(stream: Stream) -> Iterator[RawRow | Refusal]:
    """The rows as they stand in files, data set or memory; raises as `read` does."""
    place, wanted = stream.path, stream.needed
    _refuse_options(stream)
    if isinstance(place, GivenRows):
        return place.read(stream.name, wanted)
    if is_saved(place):
        return rows_of_dataset(
            _dataset(stream, place), f"{Path(place).name}/{stream.split}", wanted
        )
    if is_hub_name(place):
        return rows_of_dataset(_dataset(stream, place), f"{place}/{stream.split}", wanted)
    return chain.from_iterable(rows_of(file, wanted) for file in data_files(place))


def content_key(stream: Stream) -> str | None:
    """A hash of the content and of how it is read: equal keys mean equal records.

    Files count by name and bytes, data sets by the fingerprint that `datasets` keeps, rows given in
    Python by their content. None where that cannot be known without reading all of it (a streamed data
    set): then nothing is kept.
    """
    place = stream.path
    _refuse_options(stream)
    if stream.streaming or (isinstance(place, GivenRows) and place.digest is None):
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


def _records(stream: Stream, rows: Iterator[RawRow | Refusal]) -> Iterator[Record | Refusal]:
    accepted, empty = 0, True
    for row in rows:
        empty = False
        item = row if isinstance(row, Refusal) else _record(row, stream)
        yield item
        accepted += isinstance(item, Record)
        if accepted == stream.limit:
            return
    if empty:
        raise ValueError(f"{stream.path}: no rows, the source is empty")


def _record(row: RawRow, stream: Stream) -> Record | Refusal:
    try:
        record = record_of(row.columns, stream, row.where, row.unread)
    except RowError as error:
        return Refusal(row.where, str(error), tie=error.tie)
    except RecursionError:
        return Refusal(row.where, "nested too deeply to be a row of text")
    return record.as_messages() if stream.as_messages else record


def _refuse_options(stream: Stream) -> None:
    """ValueError for options that the stream's place has no use for."""
    place, name = stream.path, stream.name
    refuse_remembered(place)
    on_hub = isinstance(place, str) and is_hub_name(place)
    if stream.subset is not None and not on_hub:
        raise ValueError(f"{name}: subset needs a hub data set, found {place}")
    if stream.streaming and not on_hub:
        raise ValueError(f"{name}: streaming needs a hub data set, found {place}")
    saved = isinstance(place, str) and is_saved(place)
    if stream.split != "train" and not on_hub and not saved:
        raise ValueError(
            f"{name}: split {stream.split!r} needs a hub or saved data set, found "
            f"{place}: give the rows of that split as the path"
        )


def _dataset(stream: Stream, place: str) -> Any:
    if is_saved(place):
        return load_saved(place, stream.split)
    return load_hub(place, stream.subset, stream.split, stream.streaming)


def _how(stream: Stream) -> str:
    # As it was first written: another text would find no store that was made before.
    return repr(
        (
            *(stream.limit, stream.split, stream.subset, stream.as_messages),
            *(stream.name, stream.kind, sorted(stream.columns.items())),
            *(stream.score_range, sorted((stream.ratings or {}).items())),
            stream.reward is not None,
        )
    )
