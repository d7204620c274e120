"""`onestage front`: what finished runs trade away."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from onestage.cli._outputs import Force, free, placed
from onestage.cli._terminal import app, complaints, console, say

if TYPE_CHECKING:
    from onestage.report.front import Comparison


@app.command()
def front(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    optimum: Annotated[
        list[str] | None,
        typer.Option(metavar="TERM=VALUE", help="f* of a term; repeatable. [default: the runs']"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="All numbers as JSON.")] = None,
    force: Force = False,
) -> None:
    """Compare runs by their terms' held-out losses: gaps, ideal distance, front, hypervolume."""
    from onestage.report.front import as_json, compare, result_of
    from onestage.runfolder import write_text

    free(out, force)
    found = compare([result_of(folder) for folder in runs], _values(optimum or []))
    for one in found.broken:
        complaints.print(f"{one.name}: {one.problem}", style="yellow", highlight=False)
    if not found.runs:
        raise ValueError("none of the runs has held-out losses to compare")
    console.print(_table(found))
    best = ", ".join(f"{term} {value:.6g}" for term, value in found.optimum.items())
    against = "the start" if found.start else "the worst of each"
    say(f"* on the front; hypervolume against {against} {found.volume:.6g}; f*: {best}")
    if out is not None:
        write_text(placed(out), as_json(found) + "\n")


def _table(found: Comparison) -> Table:
    """The runs, nearest to the ideal point first."""
    from onestage.stats import ideal_distance

    table = Table(title="Gaps to the best, on held-out rows", title_justify="left")
    table.add_column("run")
    for name in (*found.optimum, "ideal distance", "normalised", "tokens"):
        table.add_column(name, justify="right")
    for one in found.nearest_first():
        whole = len(one.normalised) == len(found.optimum)
        table.add_row(
            one.label,
            *(f"{one.gaps[term]:.4f}" for term in found.optimum),
            f"{one.distance:.4f}",
            f"{ideal_distance(one.normalised):.3f}" if whole else "",
            f"{one.run.tokens:,}",
        )
    return table


def _values(given: list[str]) -> dict[str, float]:
    found = {}
    for item in given:
        term, equals, value = item.partition("=")
        try:
            found[term] = float(value)
        except ValueError as error:
            raise ValueError(f"--optimum {item!r}: expected TERM=NUMBER") from error
        if not equals:
            raise ValueError(f"--optimum {item!r}: expected TERM=NUMBER")
    return found
