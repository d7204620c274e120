"""`onestage train`: do what a recipe says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onestage.cli._terminal import Set, app, loading, quiet_libraries, say

UNDECIDED = (
    "no verdict: nothing was measured both before the first step and at the end (probe.retention does, "
    "optimum.given, evaluate)"
)


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
    allow_changed: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY", help="With --resume: a recipe key that may have changed; repeatable."
        ),
    ] = None,
    no_self_check: Annotated[
        bool, typer.Option("--no-self-check", help="Skip the step-0 laws.")
    ] = False,
) -> None:
    """Train what a recipe says, in one stage or in the stages it lists.

    Exit codes: 0 trained to the end, 1 an error, 2 wrong usage, 3 stopped by a guard or callback, 130
    stopped by Ctrl-C, 143 by SIGTERM; what was stopped goes on with --resume.
    """
    with loading():
        from onestage.cli._progress import Ending, progress
        from onestage.training.lock import begun
        from onestage.training.pipeline import carry_out
        from onestage.training.recipe import load_recipe

    quiet_libraries()
    content = load_recipe(recipe, set_ or [])
    folder = out or Path("runs") / recipe.stem
    ending = Ending()
    try:
        saved = carry_out(
            content,
            folder,
            resume=resume,
            allow_changed=allow_changed or (),
            self_check=not no_self_check,
            say=say,
            callbacks=[progress(), ending],
        )
    except KeyboardInterrupt:  # before the first step, or a second Ctrl-C
        say("stopped at once; " + ("go on with --resume" if begun(folder) else "nothing was begun"))
        raise
    if ending.code:
        raise typer.Exit(ending.code)
    say(f"run folder {folder}, model {saved}")
    _judge(folder)


def _judge(folder: Path) -> None:
    """Say whether the model is to be kept."""
    from onestage.report.keeping import verdict_of_run

    verdict = verdict_of_run(folder)
    for line in verdict.lines if verdict else [UNDECIDED]:
        say(line)
