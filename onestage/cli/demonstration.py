"""`onestage demo`: the main job from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onestage.cli.terminal import app, console, plain_errors, quiet_libraries, say
from onestage.cli.watching import make_watcher


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the base model and the run are kept.")] = Path(
        "runs/demo"
    ),
    seed: Annotated[int, typer.Option(help="Of the generated world.")] = 0,
) -> None:
    """Build a small base model, train it in one stage on all kinds of feedback, and compare."""
    with plain_errors():
        from onestage.demo import run_demo

        quiet_libraries()
        run_demo(out, seed, console, say, make_watcher)
