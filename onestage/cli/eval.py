"""`onestage eval`: one model judged as a study would, beside the base of the same ground."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from onestage.cli._outputs import Force, free, placed
from onestage.cli._terminal import app, console, loading, quiet_libraries, say, then, word

if TYPE_CHECKING:
    from onestage.studies.worlds import Metric

HARDLY = 0.005
"""A change up to this is none."""


@app.command("eval")
def eval_(
    model: Annotated[Path, typer.Argument(help="A model or adapter folder.")],
    world: Annotated[
        str, typer.Option(help="A world of studies and its options: lab, or {name: folder, ...}.")
    ] = "lab",
    seed: Annotated[int, typer.Option(help="Of the world.")] = 0,
    split: Annotated[Literal["validation", "test"], typer.Option(help="What is asked.")] = "test",
    out: Annotated[
        Path | None, typer.Option(help="Metrics and answers as JSON.", show_default=False)
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Where base models are kept.", show_default=False)
    ] = None,
    force: Force = False,
) -> None:
    """A model in a world of studies: what it gained and forgot. (Benchmarks: `onestage evaluate`.)"""
    import yaml

    with loading():
        from onestage.runfolder import write_json
        from onestage.studies.evaluate import evaluate

    free(out, force)
    quiet_libraries()
    judged = evaluate(model, yaml.safe_load(world), seed=seed, split=split, cache=cache, say=say)
    before, after = judged.base.metrics, judged.model.metrics
    console.print(_table(f"{model}, {split}", judged.metrics, before, after))
    if out is not None:
        answers = [dict(answer) for answer in judged.model.answers]
        write_json(placed(out), {"metrics": dict(judged.model.metrics), "answers": answers})
        say(f"{out}")
    then(f"onestage sample --model {word(model)}")


def _table(
    title: str,
    metrics: Mapping[str, Metric],
    before: Mapping[str, float],
    after: Mapping[str, float],
) -> Table:
    """What changed; green for the better, red for the worse, dim what hardly did."""
    table = Table(title=title, title_justify="left")
    for name in ("measure", "base", "model", "change"):
        table.add_column(name, justify="left" if name == "measure" else "right")
    for name, value in after.items():
        change = value - before[name]
        gain = {"higher": change, "lower": -change, None: 0.0}[metrics[name].better]
        style = "green" if gain > HARDLY else "red" if gain < -HARDLY else "dim"
        told = f"[{style}]{change:+.3f}[/]"
        table.add_row(f"{name}: {metrics[name].says}", f"{before[name]:.3f}", f"{value:.3f}", told)
    return table
