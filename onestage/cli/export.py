"""`onestage export`: a model as one whole folder, as other programs take it."""

from __future__ import annotations

from typing import Any

from onestage.cli._flags import flags, made
from onestage.cli._terminal import app, loading, quiet_libraries, say
from onestage.models.release import Export

NOTICED = 0.05
"""Share of an adapter's effect that rounding may have and nothing is said of it."""


@app.command()
@flags(Export, arguments=["model"])
def export(asked: dict[str, Any]) -> None:
    """Write a model (an adapter merged into its base) as one folder: precision, shards, GGUF."""
    section = made(Export, asked)
    with loading():
        from onestage.models.release.write import run

    quiet_libraries()
    found = run(section, say)
    for one in found.distances:
        say(
            f"from {one.name}: logits differ by at most {one.logit:.2g}, KL {one.kl:.2g} nats a token"
        )
    own, *bases = found.distances
    for base in bases:
        if own.kl > NOTICED * base.kl:
            say(
                f"rounding to {found.dtype} has the size of {own.kl / base.kl:.0%} of what the adapter "
                "does: serve the adapter as it is, or export with --dtype fp32 or fp16"
            )
    if found.flushed:
        say(f"{found.flushed:,} weights became 0 in {found.dtype}: too small for it")
    say(f"generation: {found.settings}")
    for name, size in found.files.items():
        say(f"  {name}  {size / 1e6:,.1f} MB")
    say(
        f"{found.folder}: {found.dtype}, read back by transformers (logits within {found.reload:.1g})"
    )
