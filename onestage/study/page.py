"""What a study found, as tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table

from onestage.logbook import read_json
from onestage.study.study import Outcome


def tables(folder: Path, outcome: Outcome) -> Iterator[Table]:
    """The headline metrics of every method, then the claims."""
    told = read_json(folder / "study.json")
    axes = [axis for axis in told["axes"] if any(line.get(axis) != "" for line in outcome.table)]
    shown = [name for name in told["headline"] if any(x["metric"] == name for x in outcome.table)]
    table = Table(title=f"{told['name']}: mean ± half of the 95 % interval", title_justify="left")
    for name in ("method", *axes):
        table.add_column(name)
    for name in shown:
        table.add_column(name, justify="right")
    lines: dict[Any, dict[str, str]] = {}
    for line in outcome.table:
        place = (line["method"], *(str(line[axis]) for axis in axes))
        lines.setdefault(place, {})[line["metric"]] = number(line)
    for place, values in lines.items():
        table.add_row(*place, *(values.get(name, "") for name in shown))
    yield table
    if outcome.claims:
        found = Table(title="Claims", title_justify="left")
        for name in ("claim", "source", "verdict"):
            found.add_column(name)
        for claim in outcome.claims:
            found.add_row(claim["claim"], claim["source"], claim["verdict"])
        yield found


def number(line: dict[str, Any]) -> str:
    """A mean, and half the width of its interval where there is one."""
    mean = f"{line['mean']:.3f}" if abs(line["mean"]) < 1000 else f"{line['mean']:,.0f}"
    half = (line["high"] - line["low"]) / 2
    return mean if math.isnan(half) else f"{mean} ±{half:.3f}"
