"""`onestage score`: what a trained model says of given responses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from onestage.cli._flags import Column, Dtype, Kind, ModelName, ScoreRange, Tokenizer
from onestage.cli._inputs import load_model, stream_of
from onestage.cli._outputs import Force, free
from onestage.cli._terminal import app, complaints, loading, quiet_libraries, say


@app.command()
def score(
    model: ModelName,
    data: Annotated[str, typer.Option(help="Records: a file, folder, glob, or hub data set.")],
    out: Annotated[Path, typer.Option(help="JSON Lines to write, a line a response.")],
    kind: Kind = None,
    column: Column = None,
    score_range: ScoreRange = (0, 1),
    tokenizer: Tokenizer = None,
    max_length: Annotated[int, typer.Option(min=2, help="Longest path in tokens.")] = 2048,
    dtype: Dtype = "auto",
    force: Force = False,
) -> None:
    """Log-probabilities of given responses: `id`, `response`, `logp`, `tokens`, a line each."""
    with loading():
        from onestage.models.score import score_file

    free(out, force)
    quiet_libraries()
    policy = load_model(model, tokenizer, dtype)
    stream = stream_of(data, kind, column, score_range)
    lines, refused = score_file(policy, policy.tokenizer, stream, out, max_length)
    for row in refused[:10]:
        complaints.print(f"left out {escape(row.where)}: {escape(row.reason)}", highlight=False)
    say(f"{out}: {lines:,} responses, {len(refused):,} rows left out")
