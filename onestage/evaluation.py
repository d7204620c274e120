"""Evaluation losses on held-out rows: of every term, stream and kind, with the training objectives."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from onestage.streams.batch import pack_records
from onestage.streams.encoding import Encoded
from onestage.terms import Tally
from onestage.training import Run, reference_of

CHUNK = 256
"""Records packed at once."""


def evaluate(run: Run, records: Sequence[Encoded]) -> dict[str, float]:
    """Means over all records: `eval/loss` as training would weigh it, and by stream and kind.

    Processes share the work; every one returns the same numbers. Training state is untouched.
    """
    tally, terms = Tally(), Tally()
    rank, ranks = run.accelerator.process_index, run.accelerator.num_processes
    with run.policy.evaluating():
        for start in range(0, len(records), CHUNK):
            part = records[start : start + CHUNK]
            batch = pack_records(part, run.tokens_per_row)
            groups = [f"eval/{record.source}/{record.kind}" for record in part]
            for row in batch.rows[rank::ranks]:
                with run.accelerator.autocast():
                    logp_K = run.policy(row)
                reference = reference_of(run, row, batch, logp_K)
                losses = run.terms.losses(row, batch, logp_K, reference)
                tally.add(losses.values(), groups)
                for name, loss in losses.items():
                    terms.add([loss], [name] * len(part))
    _gather(tally, ranks)
    _gather(terms, ranks)
    weights = run.schedule.weights(run.step)
    means = {
        name: total / count for (name, what), (total, count) in terms.sums.items() if what == "loss"
    }
    weight = sum(weights[name] for name in means)
    overall = sum(weights[name] * value for name, value in means.items()) / (weight or 1.0)
    by_stream = Tally()
    for (group, what), value in tally.sums.items():
        if what == "loss":
            by_stream.merge({(group.rsplit("/", 1)[0], what): value})
    return {"eval/loss": overall, **by_stream.means(), **tally.means()}


def _gather(tally: Tally, ranks: int) -> None:
    if ranks == 1:
        return
    found: list[object] = [None] * ranks
    torch.distributed.all_gather_object(found, tally.sums)
    tally.sums = {}
    for sums in found:
        tally.merge(sums)  # type: ignore[arg-type]
