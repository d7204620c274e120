"""`onestage demo`: the main job from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onestage.cli._terminal import app, console, loading, quiet_libraries, say


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the study and its report are kept.")] = Path(
        "runs/demo"
    ),
    seed: Annotated[int, typer.Option(help="Of the generated world.")] = 0,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes.", show_default="GPUs, or else CPU cores")
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Where the base model is kept.", show_default="OUT/cache"),
    ] = None,
) -> None:
    """Build a small base model, fine-tune it three ways on the same feedback, and compare: a report."""
    with loading():
        from onestage.cli._progress import progress
        from onestage.studies.demo import run_demo

    quiet_libraries()
    where = cache or out / "cache"
    outcome = run_demo(out, seed, where, jobs, console, say, progress)
    if outcome.failed:
        raise typer.Exit(1)
