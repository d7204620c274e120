"""`onestage train`: do what a recipe says."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from onestage.cli._flags import Column, Delimiter, Encoding, Kind, ScoreRange, Subset
from onestage.cli._inputs import stream_of
from onestage.cli._terminal import Set, app, loading, quiet_libraries, say, then, word

UNDECIDED = (
    "no verdict: nothing was measured both before the first step and at the end (probe.retention does, "
    "optimum.given, evaluate)"
)


@app.command()
def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE_OR_DATA", help="A recipe (YAML), or a file of rows.")
    ],
    set_: Set = None,
    model: Annotated[
        str | None, typer.Option(help="For a file of rows: the folder or hub id to start from.")
    ] = None,
    column: Column = None,
    kind: Kind = None,
    score_range: ScoreRange = (0, 1),
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    subset: Subset = None,
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

    Of a file of rows, with --model, the kinds in it decide: the recipe is the one that `onestage init`
    writes, an adapter trained by the usual objective, and stands in the run folder.

    Exit codes: 0 trained to the end, 1 an error, 2 wrong usage, 3 stopped by a guard or callback, 130
    stopped by Ctrl-C, 143 by SIGTERM; what was stopped goes on with --resume.
    """
    with loading():
        from onestage.cli._progress import Ending, progress
        from onestage.data.stream import name_of
        from onestage.runfolder.following import begun
        from onestage.training.pipeline import carry_out
        from onestage.training.recipe import load_recipe

    quiet_libraries()
    rows = None if recipe.endswith((".yaml", ".yml")) else recipe
    written = {"encoding": encoding, "delimiter": delimiter, "subset": subset}
    asked = {"kind": kind, "column": column, "score_range": score_range, **written}
    _refuse_useless(recipe, rows, {"model": model, **asked})
    given: Any = Path(recipe)
    if rows:
        given = _first(stream_of(rows, kind, column, score_range, **written), model, set_ or [])
    content = load_recipe(given, set_ or [])
    folder = out or Path("runs") / (name_of(rows) if rows else Path(recipe).stem)
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
    if os.environ.get("RANK", "0") != "0":
        return  # the main rank says it for all
    say(f"run folder {folder}, model {saved}")
    _judge(folder)
    then(f"onestage sample --model {word(saved)}, or: onestage report {word(folder)}")


def _refuse_useless(recipe: str, rows: str | None, given: Mapping[str, Any]) -> None:
    """ValueError for what a recipe says itself, or a file of rows cannot go without."""
    if rows and given["model"] is None:
        raise ValueError(
            f"{rows}: a file of rows is trained on with --model FOLDER_OR_HUB_ID; onestage init {rows} "
            "writes a recipe instead, with every choice in it"
        )
    said = [name for name, value in given.items() if value is not None and value != (0, 1)]
    if not rows and said:
        flag = said[0].replace("_", "-")
        named = {"model": "model.name", "column": "data.STREAM.columns"}
        key = named.get(flag, f"data.STREAM.{said[0]}")
        raise ValueError(f"--{flag}: is for a file of rows; of a recipe it is --set {key}=...")


def _first(stream: Any, model: str | None, overrides: Sequence[str]) -> Any:
    """The recipe of a file of rows; its one epoch gives way to a number of steps."""
    import yaml

    from onestage.training.first_recipe import first_recipe

    content = yaml.safe_load(first_recipe([stream], model or ""))
    if any(one.startswith("train.max_steps=") for one in overrides):
        del content["train"]["num_train_epochs"]
    say(f"objective: {content['objective']} (onestage init writes this recipe down, to be changed)")
    return content


def _judge(folder: Path) -> None:
    """Say whether the model is to be kept."""
    from onestage.report.keeping import verdict_of_run

    verdict = verdict_of_run(folder)
    for line in verdict.lines if verdict else [UNDECIDED]:
        say(line)
