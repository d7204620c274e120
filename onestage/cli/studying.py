"""`onestage study` and `onestage claims`: many recipes compared, and what that says of the papers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onestage.cli.terminal import app, complaints, console, plain_errors, quiet_libraries, say


@app.command()
def study(
    file: Annotated[Path, typer.Argument(help="A study file (YAML).")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a key; repeatable."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Study folder.", show_default="runs/NAME")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes.", show_default="GPUs, or else CPU cores")
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Do failed cells again.")] = False,
    cache: Annotated[
        Path | None,
        typer.Option(help="Bases, encoded data, reference log-probabilities.", show_default=False),
    ] = None,
) -> None:
    """Compare recipes over seeds and settings, fairly; what is done already is found again."""
    with plain_errors():
        from onestage.logbook import write_text
        from onestage.study.file import load_study
        from onestage.study.page import markdown, tables
        from onestage.study.pool import default_jobs
        from onestage.study.study import Study
        from onestage.wiring import default_cache

        quiet_libraries()
        content = load_study(file, set_ or [])
        folder = out or Path("runs") / content.name
        doing = Study(
            content,
            folder,
            cache or default_cache(),
            jobs=jobs or default_jobs(),
            retry=retry,
            say=say,
        )
        outcome = doing.go()
        for table in tables(folder, outcome):
            console.print(table)
        write_text(folder / "README.md", markdown(folder, outcome))
        for note in outcome.notes:
            complaints.print(note, style="yellow", highlight=False, markup=False)
        for name, reason in outcome.failed.items():
            complaints.print(
                f"failed: {name}: {reason}", style="red", highlight=False, markup=False
            )
        say(f"study folder {folder}")
    if outcome.failed:
        raise typer.Exit(1)


@app.command()
def claims(
    folders: Annotated[list[Path], typer.Argument(help="Study folders.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("claims.md"),
) -> None:
    """Write the ledger: every claim of the studies, the papers' numbers, ours, and a verdict."""
    with plain_errors():
        from onestage.logbook import write_text
        from onestage.study.claims import ledger

        missing = [str(folder) for folder in folders if not (folder / "claims.json").is_file()]
        if missing:
            raise ValueError(f"no finished study in {', '.join(missing)} (claims.json is missing)")
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, ledger(folders, out.parent))
        say(f"{out}")
