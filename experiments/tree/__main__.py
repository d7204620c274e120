"""`make tree`: what hints are for, on a tree with one right leaf."""

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
        "runs/tree"
    ),
    seeds: Annotated[int, typer.Option(min=4, help="Runs of each kind, at once.")] = 16,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer depths.")] = False,
) -> None:
    """Learn with hints on a tree with one right leaf: tables, claims, a figure. Fails if one fails."""
    with plain_errors():
        from experiments.figures import require_matplotlib
        from experiments.tables import grid, write_numbers
        from experiments.tree.bench import Size, bench, curves
        from experiments.tree.page import draw

        require_matplotlib()
        start = time.perf_counter()
        tables, claims = {}, []
        for table, shown in bench(Size.named("quick" if quick else "default", seeds)):
            tables[table.name] = table
            claims += shown
            console.print(grid(table))
            for claim in shown:
                say(f"{'holds' if claim.holds else 'FAILS'}: {claim.text}")
            say(f"{table.seconds:.1f} s\n")
        draw(out / "tree.svg", tables["theory"], curves(seeds))
        seconds = round(time.perf_counter() - start, 1)
        command = shlex.join(["python", "-m", "experiments.tree", *sys.argv[1:]])
        settings = {
            "command": command,
            "seeds": seeds,
            "seconds": seconds,
            "claims": {claim.text: claim.holds for claim in claims},
        }
        write_numbers(out / "tree.json", list(tables.values()), settings)
        say(f"{out}: tree.svg, tree.json, tree.md, {seconds} s")
        failed = [claim.text for claim in claims if not claim.holds]
        if failed:
            raise ValueError("claims that do not hold: " + "; ".join(failed))


if __name__ == "__main__":
    app()
