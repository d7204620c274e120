"""`onestage init`: a commented recipe from a data file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onestage.cli._inputs import stream_of
from onestage.cli._terminal import app, say


@app.command()
def init(
    data: Annotated[list[str], typer.Argument(help="Files of rows; each becomes a stream.")],
    model: Annotated[
        str, typer.Option(help="A folder or hub id of the model to start from.")
    ] = "Qwen/Qwen3-0.6B",
    out: Annotated[Path, typer.Option(help="The recipe to write.")] = Path("recipe.yaml"),
) -> None:
    """Look at data files and write a recipe for them, with what each key is for."""
    from onestage.runfolder import OutputError, write_text
    from onestage.training.first_recipe import first_recipe

    if out.exists():
        raise OutputError(f"{out} is there already; choose another --out")
    streams = [stream_of(file, None, None, (0.0, 1.0)) for file in data]
    write_text(out, first_recipe(streams, model))
    say(f"{out}; next: onestage check {out}")
