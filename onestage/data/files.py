"""Files of rows, found by path, folder, glob pattern or address, and read one row at a time.

How a file is read, its name says: JSON Lines and JSON lists (`lines.py`), CSV and TSV (`tables.py`),
workbooks (`sheets.py`), plain text, and Parquet. Of a folder the most telling kind is read: tables only
where there is no JSON and no Parquet, plain text only where there are no tables either, since beside
rows these are notes and results; what is passed over is named.
"""

from __future__ import annotations

import difflib
import glob
import gzip
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from onestage.data.lines import json_rows, text_rows
from onestage.data.raw import DataFile, RawRow, Written, columns_to_read, rows_of_table
from onestage.data.record import Refusal
from onestage.data.remote import is_remote, remote_files
from onestage.data.sheets import sheet_rows
from onestage.data.tables import table_rows

JSON_SUFFIXES = (".jsonl", ".json", ".ndjson", ".jsonl.gz", ".json.gz", ".ndjson.gz")

TABLE_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")

TEXT_SUFFIXES = (".txt", ".txt.gz")

SUFFIXES = (*JSON_SUFFIXES, ".parquet", *TABLE_SUFFIXES, ".xlsx", *TEXT_SUFFIXES)

TELLING = ((*JSON_SUFFIXES, ".parquet"), (*TABLE_SUFFIXES, ".xlsx"), TEXT_SUFFIXES)
"""What a folder is read for: the first of these that it holds."""

ALLOWED = (
    f"allowed: a file ({', '.join(s for s in SUFFIXES if not s.endswith('.gz'))}, text also .gz), a "
    "folder or a glob pattern of such files, an address (s3://, gs://, hf://, https://), a folder made "
    "by save_to_disk, or a data set of the Hugging Face hub as owner/name"
)

TO_ROWS = {
    **dict.fromkeys((".tar", ".tgz", ".tar.gz"), "tar xf {}"),
    **dict.fromkeys(
        (".db", ".sqlite", ".sqlite3"), "sqlite3 -header -csv {} 'SELECT * FROM TABLE' > rows.csv"
    ),
    **dict.fromkeys((".xls", ".ods"), "libreoffice --convert-to csv {}"),
    ".zip": "unzip {}",
    ".zst": "zstd -d {}",
    ".bz2": "bunzip2 {}",
    ".xz": "unxz {}",
    ".arrow": "in Python: datasets.Dataset.from_file('{}').to_parquet('rows.parquet')",
}
"""By the end of a name: what makes files of rows of it."""

SPLITS = frozenset(("train", "test", "validation", "valid", "val", "dev", "eval"))

DESCRIPTIONS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json")

BATCH_ROWS = 2048
"""Rows of a Parquet file or data set that are in memory at once."""


def data_files(given: str) -> list[DataFile]:
    """The files that a path, folder, pattern or address stands for, sorted; ValueError for none.

    A folder whose file names speak of several splits is refused: reading it whole would train on
    the test rows.
    """
    if is_remote(given):
        files, _ = remote_files(given, _telling)
        if not files:
            raise ValueError(f"{given}: no file of rows there; {ALLOWED}")
        return files if len(files) == 1 else _of_one_split(given, files)
    path = Path(given).expanduser()
    try:
        known = path.is_file()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ValueError(f"{given[:80]!r} can be no path ({why}); {ALLOWED}") from error
    if known:
        if not path.name.lower().endswith(SUFFIXES):
            raise ValueError(f"{given}: cannot read this kind of file{_first(path)}; {ALLOWED}")
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
    """What a folder or pattern holds beside the files that are read, but for what is hidden; sorted."""
    if is_remote(given):
        return [label for label in remote_files(given, _telling)[1] if not _hidden(label)]
    path = Path(given).expanduser()
    if path.is_file():
        return []
    if path.is_dir():
        root, found = path, [str(file) for file in path.rglob("*")]
    else:
        root, found = _fixed(path), glob.glob(str(path), recursive=True)
    read = {file.label for file in _labelled(root, found)}
    labels = (Path(os.path.relpath(file, root)) for file in found if Path(file).is_file())
    return sorted({one.as_posix() for one in labels if not _hidden(one.as_posix())} - read)


def rows_of(file: DataFile, wanted: frozenset[str], written: Written) -> Iterator[RawRow | Refusal]:
    """Every row of one file. ValueError, with the file's name, when the file itself is broken, or is
    said to be written in a way that its kind has no use for."""
    _refuse_useless(file, written)
    name = file.path.name.lower()
    if name.endswith(".parquet"):
        return _parquet_rows(file, wanted)
    if name.endswith(".xlsx"):
        return sheet_rows(file, written.sheet)
    if name.endswith(TABLE_SUFFIXES):
        return _whole(file, table_rows(file, written))
    if name.endswith(TEXT_SUFFIXES):
        return _whole(file, text_rows(file, written.encoding))
    return _whole(file, json_rows(file, written.encoding))


def _refuse_useless(file: DataFile, written: Written) -> None:
    name = file.path.name.lower()
    tables, sheets = name.endswith(TABLE_SUFFIXES), name.endswith(".xlsx")
    text = not sheets and not name.endswith(".parquet")
    for option, held, known, kind in (
        ("encoding", written.encoding, text, "a file of text"),
        ("delimiter", written.delimiter, tables, "a .csv or .tsv file"),
        (
            "subset",
            written.sheet,
            sheets,
            "a hub data set, or an .xlsx file, of which it is a sheet",
        ),
    ):
        if held is not None and not known:
            raise ValueError(f"{file.path}: {option} needs {kind}")


def _whole(file: DataFile, rows: Iterator[RawRow | Refusal]) -> Iterator[RawRow | Refusal]:
    """The rows; of a gzip file that is cut off or damaged it is said how many could be read."""
    count = 0
    try:
        for row in rows:
            yield row
            count += 1
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(
            f"{file.path}: the gzip file is cut off or damaged after {count} readable rows: {error}"
        ) from error


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


def _fixed(pattern: Path) -> Path:
    """The folder that a pattern looks in."""
    return Path(os.path.dirname(re.split(r"[*?\[]", str(pattern), maxsplit=1)[0]))


def _labelled(root: Path, paths: Iterator[str] | list[str]) -> list[DataFile]:
    labelled = {Path(os.path.relpath(path, root)).as_posix(): path for path in sorted(paths)}
    chosen = _telling([label for label, path in labelled.items() if Path(path).is_file()])
    return [DataFile(Path(labelled[label]), label) for label in chosen]


def _telling(labels: Sequence[str]) -> list[str]:
    """Of names, those of the most telling kind."""
    shown = [
        label for label in labels if not _hidden(label) and Path(label).name not in DESCRIPTIONS
    ]
    kinds = ([name for name in shown if name.lower().endswith(one)] for one in TELLING)
    return next((found for found in kinds if found), [])


def _hidden(label: str) -> bool:
    return any(part.startswith(".") for part in Path(label).parts)


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


def _first(path: Path) -> str:
    """What to type first, of a file that others make rows of."""
    how = next((how for end, how in TO_ROWS.items() if path.name.lower().endswith(end)), None)
    return f" (first: {how.format(path)})" if how else ""


def _not_found(path: Path) -> str:
    siblings = os.listdir(path.parent) if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, siblings, n=1)
    return "no such file or folder" + (f"; did you mean {near[0]!r}?" if near else "")
