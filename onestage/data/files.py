"""Files of rows: JSON Lines, JSON lists and Parquet, found by path, folder or glob pattern.

Rows are handed out one at a time and never gathered, except for a `.json` file that is one list. This is
the one reader of such files, and of plain lines: a line ends at a line feed and nowhere else (a text may
hold U+2028), a byte order mark is no part of it, and text is UTF-8.
"""

from __future__ import annotations

import difflib
import glob
import gzip
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from onestage.data._row_error import shown
from onestage.data.messages import without_nulls
from onestage.data.record import Refusal

JSON_SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz")

SUFFIXES = (*JSON_SUFFIXES, ".parquet")

ALLOWED = (
    f"allowed: a file ({', '.join(SUFFIXES)}), a folder or a glob pattern of such files, a folder "
    "made by save_to_disk, or a data set of the Hugging Face hub as owner/name"
)

SPLITS = frozenset(("train", "test", "validation", "valid", "val", "dev", "eval"))

DESCRIPTIONS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json")

BATCH_ROWS = 2048
"""Rows of a Parquet file or data set that are in memory at once."""

BOM = b"\xef\xbb\xbf"

SNIFFED = 64
"""Bytes of a file by which another encoding is known."""

EXCERPT = 20
"""Characters that are shown on either side of what is no JSON."""


class RawRow(NamedTuple):
    """A row as it stands in its source."""

    where: str
    """File and line, or data set and index: `pairs.jsonl:17`."""
    columns: Mapping[str, Any]
    unread: tuple[str, ...] = ()
    """Names of columns that were left on disk."""
    in_table: bool = False
    """Whether it is out of a table, in which every row has every column, if only null."""


class DataFile(NamedTuple):
    """One file of rows, and its name in messages and record ids: relative to what was given."""

    path: Path
    label: str


def data_files(given: str) -> list[DataFile]:
    """The files that a path, folder or pattern stands for, sorted; ValueError where there are none.

    A folder whose file names speak of several splits is refused: reading it whole would train on
    the test rows.
    """
    path = Path(given).expanduser()
    try:
        known = path.is_file()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ValueError(f"{given[:80]!r} can be no path ({why}); {ALLOWED}") from error
    if known:
        if not path.name.lower().endswith(SUFFIXES):
            raise ValueError(f"{given}: cannot read this kind of file; {ALLOWED}")
        return [DataFile(path, path.name)]
    if path.is_dir():
        files = _labelled(path, (str(file) for file in path.rglob("*")))
        if not files:
            raise ValueError(f"{given}: no file of rows in this folder; {ALLOWED}")
        return _of_one_split(given, files)
    files = []
    if glob.has_magic(given):
        files = _labelled(_fixed(path), glob.glob(str(path), recursive=True))
    if not files:
        raise ValueError(f"{given}: {_not_found(path)}; {ALLOWED}")
    return files


def skipped_files(given: str) -> list[str]:
    """What a folder or pattern holds beside files of rows, but for what is hidden; sorted."""
    path = Path(given).expanduser()
    if path.is_file():
        return []
    if path.is_dir():
        root, found = path, [str(file) for file in path.rglob("*")]
    else:
        root, found = _fixed(path), glob.glob(str(path), recursive=True)
    read = {file.label for file in _labelled(root, found)}
    labels = (Path(os.path.relpath(file, root)) for file in found if Path(file).is_file())
    shown = (one.as_posix() for one in labels if not any(p.startswith(".") for p in one.parts))
    return sorted(set(shown) - read)


def rows_of(file: DataFile, wanted: frozenset[str]) -> Iterator[RawRow | Refusal]:
    """Every row of one file. ValueError, with the file's name, when the file itself is broken."""
    if file.path.name.lower().endswith(".parquet"):
        return _parquet_rows(file, wanted)
    return _json_rows(file)


def rows_of_table(
    label: str, table: dict[str, list[Any]], start: int, unread: tuple[str, ...], count: int
) -> Iterator[RawRow]:
    """Rows out of columns; `start` is the index of the first one, counted from 0.

    In columns every mapping has each key that any of them has: null keys are padding, and are dropped.
    """
    names = list(table)
    values = zip(*table.values(), strict=True) if names else repeat((), count)
    for index, row in enumerate(values, start):
        columns = dict(zip(names, map(without_nulls, row), strict=True))
        yield RawRow(f"{label}[{index}]", columns, unread, True)


def columns_to_read(
    available: Sequence[str], wanted: frozenset[str]
) -> tuple[list[str], tuple[str, ...]]:
    """(read, left on disk); all are read when none is wanted, for the message about them."""
    read = [name for name in available if name in wanted] or list(available)
    return read, tuple(name for name in available if name not in read)


def _parquet_rows(file: DataFile, wanted: frozenset[str]) -> Iterator[RawRow]:
    # Importing pyarrow takes a tenth of a second, which every command would pay, `--help` too.
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file.path) as parquet:
            names = parquet.schema_arrow.names
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{file.path}: column {twice[0]!r} stands there twice")
            read, unread = columns_to_read(parquet.schema_arrow.names, wanted)
            start = 0
            for batch in parquet.iter_batches(batch_size=BATCH_ROWS, columns=read):
                table = {name: batch.column(name).to_pylist() for name in read}
                yield from rows_of_table(file.label, table, start, unread, batch.num_rows)
                start += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file.path}: cannot be read as Parquet: {error}") from error


def _json_rows(file: DataFile) -> Iterator[RawRow | Refusal]:
    count = 0
    try:
        with _opened(file.path) as stream:
            _require_utf8(file.path, stream)
            listed = ".json" in file.path.suffixes[-2:] and _starts_list(stream)
            for row in _list_rows(file, stream) if listed else _line_rows(file, stream):
                yield row
                count += 1
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(
            f"{file.path}: the gzip file is cut off or damaged after {count} readable rows: {error}"
        ) from error


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file that hold something, each with its number, from 1.

    Raises ValueError for text that is not UTF-8.
    """
    with path.open("rb") as stream:
        _require_utf8(path, stream)
        for number, line in _lines(stream):
            try:
                yield number, line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(f"{path.name}:{number}: {_not_utf8(line, error)}") from None


def _lines(stream: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(stream, 1):
        # Not only of the first: files that were put together have one in the middle.
        line = line.removeprefix(BOM)
        if line and not line.isspace():
            yield number, line.rstrip(b"\r\n")


def _line_rows(file: DataFile, stream: IO[bytes]) -> Iterator[RawRow | Refusal]:
    for number, line in _lines(stream):
        where = f"{file.label}:{number}"
        row = _parsed(line)
        yield Refusal(where, row) if isinstance(row, str) else RawRow(where, row)


def _list_rows(file: DataFile, stream: IO[bytes]) -> Iterator[RawRow | Refusal]:
    try:
        rows = json.loads(stream.read().removeprefix(BOM), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file.path}: starts as a JSON list, but is none: {error}") from error
    for index, row in enumerate(rows):
        where = f"{file.label}[{index}]"
        if isinstance(row, dict):
            yield RawRow(where, row)
        else:
            yield Refusal(where, f"a row must be a JSON object, found {shown(row)}")


def _parsed(line: bytes) -> dict[str, Any] | str:
    """The row of one line, or what is wrong with the line."""
    try:
        text = line.decode("utf-8")
        row = json.loads(text, object_pairs_hook=_once)
    except UnicodeDecodeError as error:
        return _not_utf8(line, error)
    except json.JSONDecodeError as error:
        if "\r" in text:
            return (
                "a line must end with a line feed, found a carriage return alone: convert the file"
            )
        excerpt = text[max(0, error.pos - EXCERPT) : error.pos + EXCERPT]
        return f"not JSON: {error.msg} at column {error.colno}, near {excerpt!r}"
    except (ValueError, RecursionError) as error:
        return f"not readable JSON: {error}"
    if not isinstance(row, dict):
        return f"a line must be a JSON object, found {shown(row)}"
    return row


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; a key that stands in it twice would silently lose the first value."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands there twice")
    return found


def _not_utf8(line: bytes, error: UnicodeDecodeError) -> str:
    return f"a line must be UTF-8, found byte 0x{line[error.start]:02x} at byte {error.start + 1}"


def _require_utf8(path: Path, stream: IO[bytes]) -> None:
    """ValueError for a file in another encoding of Unicode, which no line of it would make clear."""
    start = stream.read(SNIFFED)
    stream.seek(0)
    if start.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in start:
        raise ValueError(f"{path}: rows must be UTF-8, this looks like UTF-16: save it as UTF-8")


def _opened(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if path.suffix.lower() == ".gz" else path.open("rb")


def _starts_list(stream: IO[bytes]) -> bool:
    start = stream.read(1024).removeprefix(BOM).lstrip()
    stream.seek(0)
    return start.startswith(b"[")


def _fixed(pattern: Path) -> Path:
    """The folder that a pattern looks in."""
    return Path(os.path.dirname(re.split(r"[*?\[]", str(pattern), maxsplit=1)[0]))


def _labelled(root: Path, paths: Iterator[str] | list[str]) -> list[DataFile]:
    files = []
    for path in sorted(paths):
        label = Path(os.path.relpath(path, root)).as_posix()
        hidden = any(part.startswith(".") for part in Path(label).parts)
        known = path.lower().endswith(SUFFIXES) and Path(path).name not in DESCRIPTIONS
        if known and not hidden and Path(path).is_file():
            files.append(DataFile(Path(path), label))
    return files


def _of_one_split(given: str, files: list[DataFile]) -> list[DataFile]:
    splits = {
        word
        for file in files
        for word in re.split(r"[^a-z]+", file.label.lower())
        if word in SPLITS
    }
    if len(splits) > 1:
        found = ", ".join(sorted(splits))
        raise ValueError(
            f"{given}: holds files of several splits ({found}): give a pattern such as "
            f"'{given.rstrip('/')}/**/*{min(splits)}*'"
        )
    return files


def _not_found(path: Path) -> str:
    siblings = os.listdir(path.parent) if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, siblings, n=1)
    return "no such file or folder" + (f"; did you mean {near[0]!r}?" if near else "")
