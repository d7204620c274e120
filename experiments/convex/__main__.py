"""`make convex`: schedules where all optima are known, against closed forms."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from onestage.cli._terminal import console, plain_errors, say

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    out: Annotated[Path, typer.Option(help="Where the figure and the numbers are written.")] = Path(
        "runs/convex"
    ),
    seeds: Annotated[int, typer.Option(min=2, help="Runs of each kind, at once.")] = 64,
    full: Annotated[
        bool | None,
        typer.Option(
            "--full/--quick",
            help="T up to 50,000 and all seeds everywhere, or T up to 1,000, few seeds and no tables "
            "over k, of bounds and of controllers. "
            "[default: between the two]",
        ),
    ] = None,
) -> None:
    """Compare schedules where all optima are known: tables, a figure, and both as files."""
    with plain_errors():
        from experiments.convex.bench import bench, trajectories
        from experiments.convex.page import draw
        from experiments.convex.tables import Size
        from experiments.figures import require_matplotlib
        from experiments.tables import grid, write_numbers

        require_matplotlib()
        start = time.perf_counter()
        size = Size.named("default" if full is None else "full" if full else "quick", seeds)
        tables = {}
        for table in bench(size):
            tables[table.name] = table
            console.print(grid(table))
            say(f"{table.seconds:.1f} s\n")
        draw(out / "convex.svg", trajectories(size.most), tables["over_time"])
        seconds = round(time.perf_counter() - start, 1)
        command = shlex.join(["python", "-m", "experiments.convex", *sys.argv[1:]])
        settings = {"command": command, "seeds": size.seeds, "seconds": seconds}
        write_numbers(out / "convex.json", list(tables.values()), settings)
        say(f"{out}: convex.svg, convex.json, convex.md, {seconds} s")


if __name__ == "__main__":
    app()
