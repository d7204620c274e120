"""`onestage merge`: one whole model, from an adapter and its base or from several models."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from onestage.cli._flags import Column, Kind, ScoreRange, flags, made
from onestage.cli._inputs import stream_of
from onestage.cli._terminal import app, complaints, console, quiet_libraries, say, then, word
from onestage.models.merge import Merge, carried_out

AMA = "AMA only"


@app.command()
@flags(
    Merge,
    arguments=["models"],
    without=["data", "tokens_per_row"],
    panels={"min_score": AMA, "adaptive": AMA},
)
def merge(
    asked: dict[str, Any],
    *,
    data: Annotated[
        str | None,
        typer.Option(help="Records to compare on; for ama good responses of the aligned model."),
    ] = None,
    kind: Kind = None,
    column: Column = None,
    score_range: ScoreRange = (0, 1),
) -> None:
    """Merge trained models, or one adapter and its base, into one whole model, and compare it with
    each."""
    quiet_libraries()
    if data is not None:
        asked["data"] = stream_of(data, kind, column, score_range)
    elif kind or column or score_range != (0, 1):
        raise ValueError("--kind, --column and --score-range are of the records: give --data")
    _show(carried_out(made(Merge, asked), say))


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
    what = f"one adapter {method}" if count == 1 else f"{method} of {count} models"
    say(f"{merged.folder}: {what}{left_out}")
    then(f"onestage sample --model {word(merged.folder)}")
