"""`onestage lab`: experiments that need no model."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from onestage.cli.terminal import app, console, plain_errors, say

lab = typer.Typer(
    help="Experiments small enough to have closed forms.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(lab, name="lab")


@lab.callback()
def experiments() -> None:
    """Experiments small enough to have closed forms."""


@lab.command()
def convex(
    out: Annotated[Path, typer.Option(help="Where the figure and the numbers are written.")] = Path(
        "runs/convex"
    ),
    seeds: Annotated[int, typer.Option(min=2, help="Runs of each kind, at once.")] = 64,
    full: Annotated[
        bool | None,
        typer.Option(
            "--full/--quick",
            help="T up to 50,000 and all seeds everywhere, or T up to 1,000, few seeds and no tables "
            "over k. "
            "[default: between the two]",
        ),
    ] = None,
) -> None:
    """Compare schedules where all optima are known: tables, a figure, and both as files."""
    with plain_errors():
        from onestage.lab import convex_page
        from onestage.lab.convex_bench import bench, trajectories
        from onestage.lab.convex_tables import Size

        convex_page.require_matplotlib()
        start = time.perf_counter()
        size = Size.named("default" if full is None else "full" if full else "quick", seeds)
        tables = {}
        for table in bench(size):
            tables[table.name] = table
            console.print(convex_page.grid(table))
            say(f"{table.seconds:.1f} s\n")
        convex_page.draw(out / "convex.svg", trajectories(size.most), tables["over_time"])
        seconds = round(time.perf_counter() - start, 1)
        command = shlex.join(["onestage", *sys.argv[1:]])
        settings = {"command": command, "seeds": size.seeds, "seconds": seconds}
        convex_page.write_numbers(out / "convex.json", list(tables.values()), settings)
        say(f"{out}: convex.svg, convex.json, convex.md, {seconds} s")
