"""What commands write: never over what is there, unless they are told to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onestage.cli._terminal import word
from onestage.runfolder import OutputError, require_writable

Force = Annotated[bool, typer.Option("--force", help="Replace what is there already.")]


def free(out: Path | None, force: bool, called: str = "--out") -> None:
    """Raise `OutputError`, before anything long begins, where a file to be written is there already, or
    could not be written at all. A folder is never replaced by a file."""
    if out is None:
        return
    if out.is_dir():
        raise OutputError(f"{called} {word(out)}: is a folder; give the name of a file")
    if out.exists() and not force:
        raise OutputError(
            f"{word(out)} is there already; choose another {called}, or replace it with --force"
        )
    require_writable(out, called)


def placed(out: Path) -> Path:
    """The same place, with the folders on its way made, now that there is something to write."""
    out.parent.mkdir(parents=True, exist_ok=True)
    return out
