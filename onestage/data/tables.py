"""Tables of text, one row after another: CSV and TSV, after the rules of RFC 4180.

The first line names the columns. Every cell is text, an empty one is null; quotes, line breaks within
them, byte order marks and both kinds of line ends are understood. What separates the cells is a comma,
in .tsv a tab; anything else is said, never guessed.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, Any

from onestage.data import lines
from onestage.data.raw import DataFile, RawRow, Written
from onestage.data.record import Refusal

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}

LONGEST_NAME = 100
"""Characters of a column's name; what is longer is somebody's text."""

SEPARATOR = re.compile(r'"?sep=(\\t|.)"?', re.IGNORECASE)
"""A line that spreadsheet programs read, and write above a table: what separates its cells."""

MARKUP = ("<!doctype", "<html", "<table", "<?xml")

INDEX = "Unnamed: 0"
"""What pandas calls the column of row numbers that it writes without a name."""


def table_rows(file: DataFile, written: Written) -> Iterator[RawRow | Refusal]:
    """Every row of a table of text; ValueError for one whose columns cannot be told."""
    tabs = ".tsv" in (suffix.lower() for suffix in file.path.suffixes[-2:])
    delimiter = written.delimiter or ("\t" if tabs else ",")
    # The module has one bound for all readers; ours is that of lines.
    csv.field_size_limit(lines.LONGEST)
    with lines.opened(file.path, written.encoding) as stream:
        text = _decoded(file.path, stream)
        first = next(text, "")
        said = SEPARATOR.fullmatch(first.strip(" \r\n"))  # not a tab, which the sign may be
        if said:
            delimiter = written.delimiter or said[1].replace("\\t", "\t")
        table = csv.reader(text if said else chain([first], text), delimiter=delimiter, strict=True)
        header = _header(file.path, table, delimiter)
        while True:
            start = table.line_num + 1 + bool(said)
            try:
                cells = next(table, None)
            except csv.Error as error:
                if "end of data" in str(error):
                    raise ValueError(
                        f"{file.path}:{start}: a quote that opens in this row is never closed"
                    ) from error
                yield Refusal(f"{file.label}:{start}", f"not a row of {file.path.suffix}: {error}")
                continue
            if cells is None:
                return
            if cells:
                yield row_of(f"{file.label}:{start}", header, cells)


def row_of(where: str, header: Sequence[str], cells: Sequence[Any]) -> RawRow | Refusal:
    """The cells under their names; refused where there are more or fewer, as they would be shifted."""
    held = [None if isinstance(cell, str) and not cell.strip() else cell for cell in cells]
    while len(held) > len(header) and held[-1] is None:
        held.pop()
    if len(held) != len(header):
        return Refusal(where, _uneven(len(held), len(header)))
    return RawRow(where, dict(zip(header, held, strict=True)), (), True)


def _uneven(cells: int, columns: int) -> str:
    told = f"has {cells} cells, and line 1 names {columns} columns"
    if cells < columns:
        return told
    if columns == 1:
        return f"{told}: the names of all columns stand in line 1, without a title above them"
    return (
        f"{told}: each needs one there (no merged cells), and a cell that holds a delimiter quotes"
    )


def names_of(path: Path, cells: Sequence[Any]) -> list[str]:
    """The names of columns that a first line gives; ValueError where it gives none or one twice."""
    names = [str("" if cell is None else cell).strip() for cell in cells]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise ValueError(f"{path}: no rows, the source is empty: line 1 must name the columns")
    if not names[0]:
        names[0] = INDEX
    if "" in names:
        raise ValueError(
            f"{path}: column {names.index('') + 1} has no name in line 1 (merged cells?): one line of "
            "names, one for each column"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{path}: column {twice[0]!r} stands there twice")
    long = next((name for name in names if len(name) > LONGEST_NAME), None)
    if long:
        raise ValueError(f"{path}: line 1 must name the columns, found {long[:40]!r}...")
    return names


def _header(path: Path, table: Iterator[list[str]], delimiter: str) -> list[str]:
    try:
        cells = next((cells for cells in table if any(cell.strip() for cell in cells)), [])
    except csv.Error as error:
        why = str(error)
        if "new-line character" in why:
            why = "lines end with a carriage return alone: save it with line feeds"
        raise ValueError(f"{path}: line 1 names no columns: {why}") from error
    if cells and cells[0].lstrip().lower().startswith(MARKUP):
        raise ValueError(
            f"{path}: looks like a web page, not like a table: open it in a spreadsheet program and "
            "save it as .csv or .xlsx"
        )
    if cells and cells[0].lstrip().startswith(("{", "[")):
        raise ValueError(f"{path}: looks like JSON, not like a table: name it .jsonl or .json")
    names = names_of(path, cells)
    if len(names) == 1:
        for other, called in DELIMITERS.items():
            if other != delimiter and other in names[0]:
                raise ValueError(
                    f"{path}: one column, whose name {names[0][:60]!r} holds a {called}: say "
                    f"delimiter: {other!r} (--delimiter) if that is what separates the columns"
                )
    return names


def _decoded(path: Path, stream: IO[bytes]) -> Iterator[str]:
    number = 0
    while line := stream.readline(lines.LONGEST):
        number += 1
        if len(line) == lines.LONGEST:
            raise ValueError(f"{path}:{number}: {lines.too_long()}")
        try:
            yield (line.removeprefix(lines.BOM) if number == 1 else line).decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}:{number}: {lines.not_utf8(line, error)}") from None
