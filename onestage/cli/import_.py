"""`onestage import`: a recipe from another tool's configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onestage.cli._outputs import Force, free, placed
from onestage.cli._terminal import app, say, then, word


@app.command("import")
def import_(
    config: Annotated[
        Path, typer.Argument(help="A configuration (YAML, JSON, or a shell script).")
    ],
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="TOOL",
            help="axolotl, llama_factory, ms_swift, trl. [default: recognised by its keys]",
        ),
    ] = None,
    devices: Annotated[
        int | None,
        typer.Option(
            min=1, help="On how many it was trained. [default: what a script says, else 1]"
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="The recipe to write.")] = Path("recipe.yaml"),
    force: Force = False,
) -> None:
    """Write a recipe that trains as another tool's configuration does; what is not carried is told."""
    from onestage.runfolder import write_text
    from onestage.training.imports import find, recognise
    from onestage.training.imports._script import read
    from onestage.training.imports._text import written

    free(out, force)
    told = read(config)
    tool = find(from_ or recognise(told.given, told.command))()
    carried = tool.carry(told.given, devices or told.devices or 1, told.command)
    carried.notes += told.notes
    write_text(placed(out), written(carried, tool.title, config.name))
    for note in carried.told:
        say(f"note: {note}")
    for key, why in carried.unneeded.items():
        say(f"not needed: {key}: {why}")
    for key, value in carried.left.items():
        say(f"NOT CARRIED: {key}: {value}")
    left = len(carried.left)
    say(f"{out}: {left} keys of {tool.title} could not be carried" if left else f"{out}")
    then(f"onestage check {word(out)}")
