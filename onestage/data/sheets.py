"""Workbooks (.xlsx), read by openpyxl: one sheet, whose first line names the columns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any
from zipfile import BadZipFile

from onestage.data.raw import DataFile, RawRow
from onestage.data.record import Refusal
from onestage.data.tables import names_of, row_of

COMPOUND = b"\xd0\xcf\x11\xe0"
"""How files of the older programs begin, and encrypted ones of the newer."""
SNIFFED = 512
ERROR = "#"
"""How the values of cells begin that could not be computed: #N/A, #DIV/0!, #REF!."""


def sheet_rows(file: DataFile, sheet: str | None) -> Iterator[RawRow | Refusal]:
    """Every row of a sheet; ValueError for a workbook that has none, or several, to choose from.

    A formula counts as the value that was saved with it. One without is refused with its row: it was
    never computed.
    """
    with closing(_workbook(file, True)) as values, closing(_workbook(file, False)) as formulas:
        name = _sheet(file, values, sheet)
        header: list[str] = []
        written = _lines(formulas[name])
        for number, (cells, written_cells) in enumerate(
            zip(_lines(values[name]), written, strict=True), 1
        ):
            if all(cell is None for cell in written_cells):
                continue
            if not header:
                header = names_of(file.path, cells)
                continue
            where = f"{file.label}:{number}"
            wrong = _wrong(header, cells, written_cells)
            yield Refusal(where, wrong) if wrong else _row(where, header, cells)


def _row(where: str, header: list[str], cells: tuple[Any, ...]) -> RawRow | Refusal:
    # Behind its last cell a line of a sheet just ends.
    empty = (None,) * (len(header) - len(cells))
    held = [
        cell if isinstance(cell, str | int | float) else str(cell) if cell is not None else None
        for cell in (*cells, *empty)
    ]
    return row_of(where, header, held)


def _wrong(header: list[str], cells: tuple[Any, ...], written: tuple[Any, ...]) -> str:
    """What is wrong with the cells of a line: formulas that were never computed, or not to an end."""
    for name, value, said in zip(header, cells, written, strict=False):
        formula = said is not None and said != value and (value is None or _failed(value))
        if formula:
            return (
                f"column {name!r} holds the formula {str(said)!r} without a value: save the file in "
                "a spreadsheet program, or as .csv"
            )
    return ""


def _failed(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(ERROR)


def _lines(sheet: Any) -> Iterator[tuple[Any, ...]]:
    # Some programs write down a size that is not the sheet's.
    sheet.reset_dimensions()
    return sheet.iter_rows(values_only=True)


def _sheet(file: DataFile, book: Any, wanted: str | None) -> str:
    names = [sheet.title for sheet in book.worksheets]
    if wanted is not None:
        if wanted not in names:
            raise ValueError(f"{file.path}: no sheet {wanted!r}, found {', '.join(names)}")
        return wanted
    filled = [sheet.title for sheet in book.worksheets if _holds_any(sheet)]
    if not filled:
        raise ValueError(f"{file.path}: no rows, every sheet is empty")
    if len(filled) > 1:
        raise ValueError(
            f"{file.path}: several sheets hold something ({', '.join(filled)}): say which is meant, "
            f"as subset: {filled[0]} (--subset)"
        )
    return filled[0]


def _holds_any(sheet: Any) -> bool:
    return any(cell is not None for line in _lines(sheet) for cell in line)


def _workbook(file: DataFile, values: bool) -> Any:
    try:
        import openpyxl
    except ImportError as error:
        raise ValueError(
            f"{file.path}: .xlsx is read by openpyxl: pip install 'onestage[tables]', or save as .csv"
        ) from error
    try:
        return openpyxl.load_workbook(file.path, read_only=True, data_only=values)
    except (BadZipFile, OSError, KeyError, ValueError) as error:
        raise ValueError(f"{file.path}: cannot be read as .xlsx: {_what(file, error)}") from error


def _what(file: DataFile, error: Exception) -> str:
    """What a file is that is no workbook, as far as its first bytes tell."""
    with file.path.open("rb") as opened:
        start = opened.read(SNIFFED)
    if start.startswith(COMPOUND):
        return (
            "it is an older workbook (.xls), or one with a password: save it as .xlsx without one"
        )
    if not start.startswith(b"PK") and b"\0" not in start:
        return "it is a file of text: name it .csv or .tsv"
    return str(error)
