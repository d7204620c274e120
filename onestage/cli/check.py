"""`onestage check`: what will be trained on and what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onestage.cli._inputs import stream_of
from onestage.cli._terminal import Set, app, console, plain_errors, quiet_libraries, say


@app.command()
def check(
    what: Annotated[
        Path, typer.Argument(metavar="RECIPE_OR_DATA", help="A recipe or a data file.")
    ],
    set_: Set = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="For a data file: count and mark tokens with this one.")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="For a data file: the kind of its rows.")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="OURS=THEIRS", help="For a data file: rename a column; repeatable."),
    ] = None,
    score_range: Annotated[
        tuple[float, float], typer.Option(help="For a data file: range of its scores.")
    ] = (0.0, 1.0),
    max_length: Annotated[int, typer.Option(help="For a data file: longest path.")] = 2048,
) -> None:
    """Show what will be trained on and what is wrong with it, before any weights are loaded."""
    with plain_errors():
        from onestage.training.check import check_data, check_recipe

        quiet_libraries()
        if what.suffix in (".yaml", ".yml"):
            good = check_recipe(what, set_ or [], console, say)
        else:
            stream = stream_of(str(what), kind, column, score_range)
            good = check_data(stream, tokenizer, max_length, console)
    if not good:
        raise typer.Exit(1)
