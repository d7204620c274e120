"""Reads a source: every row comes out as a `Record`, or as a `Refusal` that says why not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from onestage.data.files import Row, data_files, rows_of
from onestage.data.hub import is_hub_name, is_saved, load_hub, load_saved, rows_of_dataset
from onestage.data.options import DataOptions
from onestage.data.record import Record, Refusal, RowError, Tie
from onestage.data.rows import Columns, record_of

FORMAT = b"onestage records 1"
"""Part of every content key: change it when the same rows come to give other records."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where rows come from and how to read them. ValueError for options that cannot be honoured."""

    path: str
    """A file, a folder or glob pattern of files, a `save_to_disk` folder, or a hub's owner/name."""
    columns: Columns
    limit: int | None = None
    """At most so many records; refused rows do not count."""
    split: str = "train"
    """Which part of a hub or saved data set; plain files have no splits."""
    config: str | None = None
    """Which configuration (subset) of a hub data set."""
    streaming: bool = False
    """Read a hub data set over the network, without keeping it on disk."""
    as_messages: bool = False
    """Turn plain prompts and completions into messages, so that the chat template is applied."""

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"{self.name}: limit must be 1 or more, found {self.limit}")
        on_hub = is_hub_name(self.path)
        if self.config is not None and not on_hub:
            raise ValueError(f"{self.name}: config needs a hub data set, found {self.path}")
        if self.streaming and not on_hub:
            raise ValueError(f"{self.name}: streaming needs a hub data set, found {self.path}")
        if self.split != "train" and not on_hub and not is_saved(self.path):
            raise ValueError(
                f"{self.name}: split {self.split!r} needs a hub or saved data set, found "
                f"{self.path}: give the files of that split as the path"
            )

    @property
    def name(self) -> str:
        """The stream's name, which its records carry."""
        return self.columns.source


def read(source: Source) -> Iterator[Record | Refusal]:
    """Every row of the source, in file order; memory does not grow with the number of rows.

    Raises ValueError at once when there is nothing to read at the path, and while reading when a
    file turns out to be damaged or all of them are empty.
    """
    return _records(source, rows(source))


def content_key(source: Source) -> str | None:
    """A hash of the source's content and reading options: equal keys mean equal records.

    Files count by name and bytes, data sets by the fingerprint that `datasets` keeps. None for a
    streamed data set, whose content cannot be known without reading it: such a source has no cache.
    """
    if source.streaming:
        return None
    digest = hashlib.blake2b(FORMAT, digest_size=16)
    digest.update(_options(source).encode())
    if is_saved(source.path) or is_hub_name(source.path):
        digest.update(_dataset(source)._fingerprint.encode())
        return digest.hexdigest()
    for file in data_files(source.path):
        with file.path.open("rb") as stream:
            content = hashlib.file_digest(stream, "blake2b").hexdigest()
        digest.update(f"{file.label!r} {content}\n".encode())
    return digest.hexdigest()


def _records(source: Source, rows: Iterator[Row | Refusal]) -> Iterator[Record | Refusal]:
    columns, limit, accepted, empty = source.columns, source.limit, 0, True
    for row in rows:
        empty = False
        if isinstance(row, Refusal):
            yield row
            continue
        where, values, unread = row
        try:
            record = record_of(values, columns, where, unread)
        except RowError as error:
            yield Refusal(where, str(error), tie=isinstance(error, Tie))
            continue
        except RecursionError:
            yield Refusal(where, "nested too deeply to be a row of text")
            continue
        yield record.as_messages() if source.as_messages else record
        accepted += 1
        if accepted == limit:
            return
    if empty:
        raise ValueError(f"{source.path}: no rows, the source is empty")


def rows(source: Source) -> Iterator[Row | Refusal]:
    """The source's rows as they stand in its files or data set: where, columns, columns left unread."""
    wanted = source.columns.reads
    if is_saved(source.path):
        label = f"{Path(source.path).name}/{source.split}"
        return rows_of_dataset(_dataset(source), label, wanted)
    if is_hub_name(source.path):
        return rows_of_dataset(_dataset(source), f"{source.path}/{source.split}", wanted)
    files = data_files(source.path)
    return chain.from_iterable(rows_of(file, wanted) for file in files)


def _dataset(source: Source) -> Any:
    if is_saved(source.path):
        return load_saved(source.path, source.split)
    return load_hub(source.path, source.config, source.split, source.streaming)


def _options(source: Source) -> str:
    columns = source.columns
    return repr(
        (
            *(source.limit, source.split, source.config, source.as_messages),
            *(columns.source, columns.kind, sorted(columns.rename.items())),
            *(columns.score_range, sorted(columns.ratings.items()), columns.facts),
        )
    )


def source_of(stream: DataOptions, *, held_out: bool) -> Source:
    """How to read a stream's training or held-out rows."""
    columns = Columns(
        source=stream.name,
        kind=stream.kind,
        rename=stream.columns,
        score_range=stream.score_range,
        ratings=stream.ratings or {},
        facts=stream.reward is not None,
    )
    source = Source(
        path=stream.path,
        columns=columns,
        limit=stream.limit,
        split=stream.split,
        config=stream.subset,
        streaming=stream.streaming,
        as_messages=stream.as_messages,
    )
    if not held_out:
        return source
    return replace(
        source,
        path=stream.eval_path or stream.path,
        limit=stream.eval_limit,
        split=stream.eval_split or "train",
    )
