"""`onestage lab`: a small world to train in, and experiments that need no model."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from onestage.cli.terminal import app, console, plain_errors, quiet_libraries, say
from onestage.cli.watching import make_watcher

lab = typer.Typer(
    help="A small world to train in, and experiments with closed forms.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(lab, name="lab")


@lab.callback()
def experiments() -> None:
    """A small world to train in, and experiments with closed forms."""


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
        from onestage.lab.convex_bench import bench, trajectories
        from onestage.lab.convex_page import draw
        from onestage.lab.convex_tables import Size
        from onestage.lab.figures import require_matplotlib
        from onestage.lab.tables import grid, write_numbers

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
        command = shlex.join(["onestage", *sys.argv[1:]])
        settings = {"command": command, "seeds": size.seeds, "seconds": seconds}
        write_numbers(out / "convex.json", list(tables.values()), settings)
        say(f"{out}: convex.svg, convex.json, convex.md, {seconds} s")


@lab.command()
def tree(
    out: Annotated[Path, typer.Option(help="Where the figure and the numbers are written.")] = Path(
        "runs/tree"
    ),
    seeds: Annotated[int, typer.Option(min=4, help="Runs of each kind, at once.")] = 16,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer depths.")] = False,
) -> None:
    """Learn with hints on a tree with one right leaf: tables, claims, a figure. Fails if one fails."""
    with plain_errors():
        from onestage.lab.figures import require_matplotlib
        from onestage.lab.tables import grid, write_numbers
        from onestage.lab.tree_bench import Size, bench, curves
        from onestage.lab.tree_page import draw

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
        command = shlex.join(["onestage", *sys.argv[1:]])
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


@lab.command()
def base(
    out: Annotated[
        Path, typer.Option(help="A cache folder: a base that is there is found.")
    ] = Path("runs/lab"),
    seed: Annotated[int, typer.Option(help="Of the generated world.")] = 0,
    size: Annotated[str, typer.Option(help="small (two CPU cores) or large (a GPU).")] = "small",
) -> None:
    """Pretrain the base model of a generated world; prints its folder."""
    with plain_errors():
        from onestage.lab.ground import make_base
        from onestage.lab.presets import size_of
        from onestage.lab.world import World

        quiet_libraries()
        known = size_of(size)
        world = World(seed, known)
        folder = make_base(world, out, known, seed=seed, say=say, watcher=make_watcher())
        say(str(folder))


@lab.command()
def rows(
    out: Annotated[Path, typer.Option(help="Where KIND.SPLIT.jsonl are written.")] = Path(
        "runs/lab/rows"
    ),
    seed: Annotated[int, typer.Option(help="Of the generated world.")] = 0,
    size: Annotated[str, typer.Option(help="small or large.")] = "small",
) -> None:
    """Write a generated world's rows of every kind and split."""
    with plain_errors():
        from onestage.lab.ground import write_rows
        from onestage.lab.presets import size_of
        from onestage.lab.world import World

        files = write_rows(World(seed, size_of(size)), out)
        say(f"{len(files)} files in {out}")
