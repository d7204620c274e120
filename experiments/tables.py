"""How a bench of the lab is shown: tables in the terminal and in Markdown, and a file of all numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table as Grid


@dataclass
class Table:
    """Rows of plain values; None where there is nothing to print."""

    name: str
    title: str
    columns: list[str]
    note: str = ""
    rows: list[list[Any]] = field(default_factory=list)
    seconds: float = 0.0


def grid(table: Table) -> Grid:
    """For the terminal."""
    shown = Grid(
        title=table.title, caption=table.note, title_justify="left", caption_justify="left"
    )
    for column in table.columns:
        shown.add_column(column, overflow="fold")
    for row in table.rows:
        shown.add_row(*map(cell, row))
    return shown


def cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        places = 4 if abs(value) >= 0.01 or value == 0 else 5
        return str(value) if round(value, 2) == value else f"{value:.{places}f}"
    if isinstance(value, list):
        return ", ".join(f"{part:.3f}" if len(value) == 2 else f"{part:.4f}" for part in value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def markdown(table: Table) -> str:
    """For a page of documentation."""
    rows = [table.columns, ["---"] * len(table.columns), *(map(cell, row) for row in table.rows)]
    lines = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return f"**{table.title}**\n\n{lines}\n\n{table.note}\n"


def write_numbers(file: Path, tables: Sequence[Table], settings: dict[str, Any]) -> None:
    """All tables as JSON, unrounded, and beside it as Markdown."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.with_suffix(".md").write_text("\n".join(map(markdown, tables)))
    whole = {**settings, "tables": {table.name: asdict(table) for table in tables}}
    file.write_text(json.dumps(whole, indent=1) + "\n")
