"""Rows as they stand in a source, before anything is made of them, and how their file is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

from onestage.data.messages import PLAIN, without_nulls


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


class Written(NamedTuple):
    """How a file is written, where its name does not tell: what nobody said is never guessed."""

    encoding: str | None = None
    """Default: UTF-8."""
    delimiter: str | None = None
    """Default: a comma, in .tsv a tab."""
    sheet: str | None = None
    """Default: the one that holds anything."""


def rows_of_table(
    label: str, table: dict[str, list[Any]], start: int, unread: tuple[str, ...], count: int
) -> Iterator[RawRow]:
    """Rows out of columns; `start` is the index of the first one, counted from 0.

    In columns every mapping has each key that any of them has: null keys are padding, and are dropped.
    """
    names, held = list(table), map(_filled, table.values())
    values = zip(*held, strict=True) if names else repeat((), count)
    for index, row in enumerate(values, start):
        yield RawRow(f"{label}[{index}]", dict(zip(names, row, strict=True)), unread, True)


def _filled(column: list[Any]) -> list[Any]:
    """A column without null keys; most hold no mapping, which one look at their types tells."""
    return column if PLAIN.issuperset(map(type, column)) else list(map(without_nulls, column))


def columns_to_read(
    available: Sequence[str], wanted: frozenset[str]
) -> tuple[list[str], tuple[str, ...]]:
    """(read, left on disk); all are read when none is wanted, for the message about them."""
    read = [name for name in available if name in wanted] or list(available)
    return read, tuple(name for name in available if name not in read)
