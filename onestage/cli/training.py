"""`onestage train` and `onestage check`: before and during a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onestage.cli.inputs import source_of_rows
from onestage.cli.terminal import Set, app, console, plain_errors, quiet_libraries, say
from onestage.cli.watching import make_watcher


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe (YAML).")],
    set_: Set = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder.", show_default="runs/RECIPE")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint.")
    ] = False,
    no_self_check: Annotated[
        bool, typer.Option("--no-self-check", help="Skip the step-0 laws.")
    ] = False,
) -> None:
    """Train what a recipe says, in one stage or in the stages it lists."""
    with plain_errors():
        from onestage.recipe import load_recipe
        from onestage.run import run_recipe
        from onestage.stages import run_stages

        quiet_libraries()
        content = load_recipe(recipe, set_ or [])
        folder = out or Path("runs") / recipe.stem
        saved = (run_stages if content.stages else run_recipe)(
            content,
            folder,
            resume=resume,
            self_check=not no_self_check,
            say=say,
            watcher=make_watcher(),
        )
        say(f"run folder {folder}, model {saved}")


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
        from onestage.checking import check_data, check_recipe

        quiet_libraries()
        if what.suffix in (".yaml", ".yml"):
            good = check_recipe(what, set_ or [], console, say)
        else:
            source = source_of_rows(str(what), kind, column, score_range)
            good = check_data(source, tokenizer, max_length, console)
    if not good:
        raise typer.Exit(1)
