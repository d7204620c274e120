"""`onestage merge`: one model from several that were trained side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from onestage.cli._inputs import source_of_rows
from onestage.cli._terminal import app, complaints, console, plain_errors, quiet_libraries, say

ADAPTIVE = "AMA only"


@app.command()
def merge(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Adapters of one base, or whole models. For ama: PRE-TRAINED, ALIGNED."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Model folder to make; it must not exist.")],
    method: Annotated[
        str,
        typer.Option(help="linear, task_arithmetic, ties, dare_linear, dare_ties, slerp or ama."),
    ] = "linear",
    weights: Annotated[
        list[float] | None,
        typer.Option(help="Weight of a model, once for each.", show_default="equal; 1 with deltas"),
    ] = None,
    density: Annotated[
        float | None, typer.Option(help="ties, dare: share of entries kept.", show_default="0.2")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="The base of whole models.", show_default="the adapters' own")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="dare: of what is dropped; ama: of the order.", show_default="0"),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Records to compare on; for ama good responses of the aligned model."),
    ] = None,
    kind: Annotated[str | None, typer.Option(help="The kind of the rows.")] = None,
    column: Annotated[
        list[str] | None, typer.Option(metavar="OURS=THEIRS", help="Rename a column; repeatable.")
    ] = None,
    score_range: Annotated[tuple[float, float], typer.Option(help="Range of given scores.")] = (
        0,
        1,
    ),
    max_length: Annotated[int, typer.Option(help="Longest path in tokens.")] = 2048,
    min_score: Annotated[
        float | None,
        typer.Option(help="Scored responses are good from here on.", rich_help_panel=ADAPTIVE),
    ] = None,
    blocks: Annotated[
        int | None,
        typer.Option(help="Blocks of layers.", show_default="3", rich_help_panel=ADAPTIVE),
    ] = None,
    mean: Annotated[
        float | None,
        typer.Option(
            help="Mean share of PRE-TRAINED.", show_default="0.2", rich_help_panel=ADAPTIVE
        ),
    ] = None,
    epsilon: Annotated[
        float | None,
        typer.Option(help="Keeps the shares near.", show_default="0.2", rich_help_panel=ADAPTIVE),
    ] = None,
    penalty: Annotated[
        float | None,
        typer.Option(help="On their distance.", show_default="0.0001", rich_help_panel=ADAPTIVE),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Of Adam.", show_default="0.05", rich_help_panel=ADAPTIVE)
    ] = None,
    epochs: Annotated[int | None, typer.Option(show_default="1", rich_help_panel=ADAPTIVE)] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Responses a step.", show_default="8", rich_help_panel=ADAPTIVE),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
) -> None:
    """Merge trained models into one whole model, and compare it with each of them."""
    with plain_errors():
        from onestage.models.merge.adaptive import Adaptive
        from onestage.models.merge.merge import Merging
        from onestage.models.merge.merge import merge as run

        quiet_libraries()
        own = {
            "blocks": blocks,
            "mean": mean,
            "epsilon": epsilon,
            "penalty": penalty,
            "learning_rate": learning_rate,
            "epochs": epochs,
            "batch_size": batch_size,
        }
        given: dict[str, Any] = {name: value for name, value in own.items() if value is not None}
        asked = Merging(
            models=models,
            out=out,
            method=method,
            weights=weights,
            density=density,
            base=base,
            seed=seed,
            data=source_of_rows(data, kind, column, score_range) if data is not None else None,
            max_length=max_length,
            adaptive=Adaptive(**given) if given else None,
            min_score=min_score,
            device=device,
        )
        _show(run(asked, say))


def _show(merged: Any) -> None:
    for row in merged.refused[:10]:
        complaints.print(f"left out {escape(row.where)}: {escape(row.reason)}", highlight=False)
    table = Table(title=f"from the merged model, on {merged.prompts} prompts", title_justify="left")
    table.add_column("model", overflow="fold")
    for heading in ("largest logit\ndifference", "mean KL\n(nats)", "zeros in\nits delta"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in merged.distances:
        zeros = "" if row.zeros is None else f"{row.zeros:.1%}"
        table.add_row(escape(row.name), f"{row.logit:.3g}", f"{row.kl:.3g}", zeros)
    console.print(table)
    if merged.found is not None:
        for (first, end), share in zip(merged.found.layers, merged.found.shares, strict=True):
            say(f"layers {first} to {end - 1}: {share:.3f} of the pre-trained model")
        say(f"loss {merged.found.before:.4f} to {merged.found.after:.4f} nats a token")
    say(f"reloaded from disk: logits differ by at most {merged.reload:.1g}, which is rounding")
    count, method = len(merged.options["models"]), merged.options["method"]
    left_out = f", {len(merged.refused):,} rows left out" if merged.refused else ""
    say(f"{merged.folder}: {method} of {count} models{left_out}")
