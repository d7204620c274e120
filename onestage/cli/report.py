"""`onestage report`: runs and studies as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from onestage.cli._terminal import app, complaints, say, then

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
    latex: Annotated[
        Path | None,
        typer.Option(metavar="FILE.tex", help="The main table as LaTeX, too.", show_default=False),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv", help="The main table comma-separated, too.", show_default=False
        ),
    ] = None,
    wanted: Annotated[
        float | None,
        typer.Option(
            help="Mean gain of a model to keep: points, or per cent. [default: the recipe's]"
        ),
    ] = None,
    allowed: Annotated[
        float | None,
        typer.Option(help="By how much a measure may fall. [default: the recipe's, or 1]"),
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="The measure that decides. [default: the mean of all]")
    ] = None,
) -> None:
    """Write one HTML file that opens offline: a verdict, tables, figures, samples, how to repeat it."""
    from onestage.report.keeping import verdict_of
    from onestage.report.page import report
    from onestage.report.tables import OURS, write_tables
    from onestage.runfolder import require_ours

    for option, file, ending in (("--latex", latex, ".tex"), ("--csv", csv, ".csv")):
        if file is not None and file.suffix != ending:
            raise ValueError(f"{option} {file}: allowed are files {ending}")
        if file is not None:
            require_ours(file, OURS[ending], option)
    given = {"wanted": wanted, "allowed": allowed, "by": by}
    asked = {name: value for name, value in given.items() if value is not None}
    written = report(folders, out, title, asked)
    file = written.file
    troubles = [f"{one.where}: {one.what}" for one in written.troubles]
    if len(troubles) > SHOWN:
        troubles[SHOWN:] = [f"and {len(troubles) - SHOWN} more, see the report"]
    for line in troubles:
        complaints.print(Text(line, style="yellow"), soft_wrap=True)
    for chapter in written.chapters:
        verdict = verdict_of(chapter, asked)
        for line in verdict.lines if verdict else ():
            say(line)
    for table in write_tables(written.chapters, latex, csv):
        say(f"table {table}")
    say(f"report {file} ({file.stat().st_size / 1e6:.1f} MB)")
    then(f"open {file} in a browser")
