"""`onestage schema`: the recipe's JSON schema, for editors that complete and check YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onestage.cli._outputs import Force, free, placed
from onestage.cli._terminal import app, say


@app.command()
def schema(
    out: Annotated[Path | None, typer.Option(help="A file to write instead of printing.")] = None,
    force: Force = False,
) -> None:
    """Print the JSON schema of recipes: every key, its type, its default and what it means."""
    import json

    from onestage.runfolder import write_text
    from onestage.training.schema import schema_of_recipes

    free(out, force)
    text = json.dumps(schema_of_recipes(), indent=1) + "\n"
    if out is None:
        print(text, end="")
        return
    write_text(placed(out), text)
    say(f"{out}: name it in a recipe's first line, `# yaml-language-server: $schema={out}`")
