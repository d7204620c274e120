"""`onestage report`: runs and studies as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from onestage.cli._terminal import app, complaints, say

SHOWN = 20


@app.command("report")
def report_(
    folders: Annotated[
        list[Path], typer.Argument(metavar="RUN_OR_STUDY...", help="Run or study folders.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="The HTML file.", show_default="report.html in the folder, if it is one"),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title of the page.")] = None,
) -> None:
    """Write one HTML file that opens offline: tables, figures, samples, and how to repeat it."""
    from onestage.report.page import report

    written = report(folders, out, title)
    file = written.file
    troubles = [f"{one.where}: {one.what}" for one in written.troubles]
    if len(troubles) > SHOWN:
        troubles[SHOWN:] = [f"and {len(troubles) - SHOWN} more, see the report"]
    for line in troubles:
        complaints.print(Text(line, style="yellow"), soft_wrap=True)
    say(f"report {file} ({file.stat().st_size / 1e6:.1f} MB)")
