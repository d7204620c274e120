"""`onestage claims`: what studies say of the papers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onestage.cli._terminal import app, say


@app.command()
def claims(
    folders: Annotated[list[Path], typer.Argument(help="Study folders.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("claims.md"),
    again: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Judge anew, by the claims of FOLDER/NAME.yaml and the results that are there.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write the ledger: every claim of the studies, the papers' numbers, ours, and a verdict."""
    from onestage.runfolder import write_text
    from onestage.studies.ledger import ledger
    from onestage.studies.reopen import judge_again

    missing = [str(folder) for folder in folders if not (folder / "claims.json").is_file()]
    if missing:
        raise ValueError(f"no finished study in {', '.join(missing)} (claims.json is missing)")
    if again is not None:
        for folder in folders:
            judge_again(folder, again)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, ledger(folders, out.parent))
    say(f"{out}")
