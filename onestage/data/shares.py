"""Large files of JSON Lines, in shares that processes read, check and encode by themselves.

One process that reads for others is soon the slowest: it parses each row, and sends it and what became
of it through a pipe. A file of lines can be cut at line feeds instead: each process reads a share of its
bytes and writes the part of the store that comes of it, and the parts are put behind one another. What
comes out is the same, byte for byte: a row's number is the number of its line in the file, so lines are
counted first.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from onestage.data.counted import Table
from onestage.data.files import data_files
from onestage.data.given import GivenRows
from onestage.data.hub import is_hub_name, is_saved
from onestage.data.kinds import Kind
from onestage.data.lines import LONGEST, line_rows, opened
from onestage.data.raw import DataFile
from onestage.data.reading import Judging, Reading, passes_by, read
from onestage.data.stream import Stream
from onestage.data.workers import in_order

SUFFIXES = (".jsonl", ".ndjson")
"""Of files that can be cut at line feeds; what is packed cannot."""
LARGE = 64 << 20
"""Bytes of a stream from which on it is shared out."""
SHARE = 16 << 20
"""Bytes of a share, to the end of its last line."""
AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class Share:
    """Some lines of a file."""

    file: DataFile
    begin: int
    end: int
    """Bytes before it, and to its end."""
    before: int = 0
    """Lines before it."""


class Made(NamedTuple):
    """What became of a share: the part of a store, and what stood beside its records."""

    part: Path
    table: Table
    columns: list[str]
    kinds: set[Kind]
    noted: Mapping[str, int]


class _Range(io.RawIOBase):
    """Some bytes of a file."""

    def __init__(self, share: Share) -> None:
        self._file = share.file.path.open("rb")
        self._file.seek(share.begin)
        self._left = share.end - share.begin

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._file.read(min(len(buffer), self._left))
        self._left -= len(content)
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self._file.close()
        super().close()


def shares_of(stream: Stream, processes: int) -> list[Share]:
    """The shares of a stream's files, in order; none where it is small, or is not in files of lines, or
    where how far it is read (`limit`) is known only while it is read."""
    place = stream.path
    if processes == 1 or stream.limit is not None or stream.encoding or passes_by(stream):
        return []
    if isinstance(place, GivenRows) or is_saved(place) or is_hub_name(place) or stream.delimiter:
        return []
    files = data_files(place)
    if not all(file.path.name.lower().endswith(SUFFIXES) for file in files):
        return []
    if sum(file.path.stat().st_size for file in files) < LARGE:
        return []
    cut = [share for file in files for share in _cut(file)]
    return list(_numbered(cut, in_order(_line_feeds, cut, processes)))


def _cut(file: DataFile) -> Iterator[Share]:
    with opened(file.path):  # says what is not in UTF-8
        pass
    size, begin = file.path.stat().st_size, 0
    with file.path.open("rb") as stream:
        while begin < size:
            stream.seek(min(begin + SHARE, size))
            while (rest := stream.readline(LONGEST)) and not rest.endswith(b"\n"):
                pass
            yield Share(file, begin, stream.tell())
            begin = stream.tell()


def _line_feeds(share: Share) -> int:
    with _Range(share) as stream, io.BufferedReader(stream, AT_ONCE) as content:
        return sum(some.count(b"\n") for some in iter(lambda: content.read(AT_ONCE), b""))


def _numbered(shares: Iterable[Share], feeds: Iterable[int]) -> Iterator[Share]:
    before, file = 0, None
    for share, count in zip(shares, feeds, strict=True):
        before = before if share.file == file else 0
        yield replace(share, before=before)
        before, file = before + count, share.file


def work_on(
    stream: Stream,
    shares: Sequence[Share],
    processes: int,
    draft: Path,
    fill: Callable[[Path, Reading], Table],
) -> Iterator[Made]:
    """What becomes of the shares, in order, by so many processes. `fill`: writes the part of a store
    that comes of some rows into a folder, and counts them."""
    judging = Judging(stream)

    def work(numbered: tuple[int, Share]) -> Made:
        number, share = numbered
        (part := draft / f"part-{number}").mkdir()
        with io.BufferedReader(_Range(share), AT_ONCE) as lines:
            reading = Reading(stream, line_rows(share.file, lines, share.before), judging)
            table = fill(part, reading)
        return Made(part, table, list(reading.columns), reading.kinds, reading.noted)

    return in_order(work, enumerate(shares), processes)


def join(
    stream: Stream, made: Iterable[Made], draft: Path, names: Sequence[str]
) -> tuple[Table, Reading]:
    """Put the parts of a store behind one another, file by file; what all of them counted, and a
    reading that has seen what they saw. Raises ValueError where no share holds a row."""
    table, reading = Table(stream.name), read(stream)
    for one in made:
        table.merge(one.table)
        reading.columns.update(dict.fromkeys(one.columns))
        reading.kinds |= one.kinds
        reading.noted.update(one.noted)
        for name in names:
            with (one.part / name).open("rb") as part, (draft / name).open("ab") as whole:
                shutil.copyfileobj(part, whole, AT_ONCE)
        shutil.rmtree(one.part)
    if not (table.total or table.refused or table.ties or table.unlabelled):
        raise ValueError(f"{stream.path}: no rows, the source is empty")
    return table, reading
