"""`onestage init`: a commented recipe from a data file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onestage.cli._flags import Column, Delimiter, Encoding, Kind, ScoreRange, Subset
from onestage.cli._inputs import stream_of
from onestage.cli._outputs import Force, free, placed
from onestage.cli._terminal import app, say, then, word


@app.command()
def init(
    data: Annotated[list[str], typer.Argument(help="Files of rows; each becomes a stream.")],
    model: Annotated[
        str, typer.Option(help="A folder or hub id of the model to start from.")
    ] = "Qwen/Qwen3-0.6B",
    out: Annotated[Path, typer.Option(help="The recipe to write.")] = Path("recipe.yaml"),
    column: Column = None,
    kind: Kind = None,
    score_range: ScoreRange = (0, 1),
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    subset: Subset = None,
    force: Force = False,
) -> None:
    """Look at data files and write a recipe for them, with what each key is for."""
    from onestage.runfolder import write_text
    from onestage.training.first_recipe import first_recipe

    free(out, force)
    written = {"encoding": encoding, "delimiter": delimiter, "subset": subset}
    streams = [stream_of(file, kind, column, score_range, **written) for file in data]
    write_text(placed(out), first_recipe(streams, model))
    say(f"{out}")
    then(f"onestage check {word(out)}")
