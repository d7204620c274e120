"""Where a suite's rows come from: a file that is named, a folder of well-known names, or the hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onestage.data.files import RawRow
from onestage.data.reading import raw_rows
from onestage.data.record import Refusal
from onestage.data.stream import Stream

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")


def rows(
    what: str,
    path: str | None,
    data: Path | None,
    known_as: Sequence[str],
    hub: tuple[str, str | None, str] | None,
    option: str = "path",
) -> list[RawRow]:
    """The rows of a suite, in order.

    path: a file, folder or hub name that the user gave; data: a folder in which files of the names
    `known_as` (without suffix) are looked for; hub: data set, configuration and split to ask for where
    neither is given. Raises `ValueError`: which file is needed and where to put it.
    """
    if path is not None:
        return _read(what, Stream(path, kind="check"))
    for name in known_as if data is not None else ():
        assert data is not None
        for suffix in SUFFIXES:
            if (file := data / f"{name}{suffix}").is_file():
                return _read(what, Stream(str(file), kind="check"))
    wanted = f"{known_as[0]}.jsonl" if known_as else "a file"
    told = (
        f"the suite {what} needs its data: put {wanted} into a folder and give that with --data, or set "
        f"its option {option} to a file"
    )
    if hub is None:
        raise ValueError(told)
    place, subset, split = hub
    try:
        return _read(what, Stream(place, kind="check", subset=subset, split=split))
    except ValueError as error:
        raise ValueError(f"{told} ({error})") from error


def _read(what: str, stream: Stream) -> list[RawRow]:
    found = []
    for row in raw_rows(stream):
        if isinstance(row, Refusal):
            raise ValueError(f"the suite {what}: {row.where}: {row.reason}")
        found.append(row)
    if not found:
        raise ValueError(f"the suite {what}: {stream.path} holds no rows")
    return found


def texts(what: str, row: RawRow, *columns: str) -> list[str]:
    """Columns of a row that must be texts."""
    for column in columns:
        if not isinstance(row.columns.get(column), str):
            found: Any = row.columns.get(column)
            raise ValueError(
                f"the suite {what}: {row.where} needs the column `{column}`, a text; got {found!r:.80}"
            )
    return [row.columns[column] for column in columns]
