"""`onestage study`: many recipes compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onestage.cli._terminal import (
    app,
    complaints,
    console,
    loading,
    quiet_libraries,
    say,
    then,
    word,
)


@app.command("study")
def study_(
    file: Annotated[Path, typer.Argument(help="A study file (YAML).")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a key; repeatable."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Study folder.", show_default="runs/NAME")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Cells at once.", show_default="GPUs, or else CPU cores"),
    ] = None,
    on: Annotated[
        str,
        typer.Option(
            metavar="NAME[:ADDRESS]",
            help="Where cells are done: local, ray:HOST:PORT, or a table of options "
            "('{name: ray, shared: /mnt/all}').",
        ),
    ] = "local",
    cell: Annotated[
        str | None,
        typer.Option(
            metavar="TABLE",
            help="Only this line of its tables, with the base: '{method: SFT, seed: 0, rate: 1e-3}'. "
            "Reports print it of each line.",
            show_default=False,
        ),
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Do failed cells again.")] = False,
    changed_claims: Annotated[
        str | None,
        typer.Option(
            metavar="WHY",
            help="Why claims are others than before the first results; the ledger shows it.",
            show_default=False,
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Bases, encoded data, reference log-probabilities.", show_default=False),
    ] = None,
) -> None:
    """Compare recipes over seeds and settings, fairly; what is done already is found again."""
    with loading():
        from onestage.runfolder import write_text
        from onestage.studies.study import study
        from onestage.studies.tables import markdown, tables

    quiet_libraries()
    outcome = study(
        file,
        out=out,
        overrides=set_ or [],
        jobs=jobs,
        on=on,
        retry=retry,
        cache=cache,
        say=say,
        changed_claims=changed_claims,
        cell=cell,
    )
    folder = outcome.folder
    for table in tables(folder, outcome):
        console.print(table)
    write_text(folder / "README.md", markdown(folder, outcome))
    for note in outcome.notes:
        complaints.print(note, style="yellow", highlight=False, markup=False)
    for name, reason in outcome.failed.items():
        complaints.print(f"failed: {name}: {reason}", style="red", highlight=False, markup=False)
    say(f"study folder {folder}")
    then(f"onestage report {word(folder)}")
    if outcome.failed:
        raise typer.Exit(1)
