"""A forest row through the policy: log-probabilities, the reference's beside them, its terms' losses.

The one path from a row to numbers, for the loop, for evaluations, for probes and for the step-0 laws.

Legend: K scored tokens of a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from onestage.data.encoded import Floats
from onestage.data.packing import Batch, Row
from onestage.objectives import Loss

if TYPE_CHECKING:
    from onestage.training.run import Run


def row_loss(
    run: Run,
    row: Row,
    batch: Batch,
    weights: Mapping[str, float],
    counts: Mapping[str, float],
) -> tuple[Tensor, dict[str, Loss]]:
    """What one row adds to the step's loss, and the losses of its terms."""
    logp_K, losses = row_terms(run, row, batch)
    parts = [
        weights[name] / counts[name] * loss.loss_U.sum()
        for name, loss in losses.items()
        if counts.get(name)
    ]
    # A zero with a graph behind it, so that a row without any unit can go backward, too.
    return sum(parts, start=0.0 * logp_K.sum()), losses


def row_terms(run: Run, row: Row, batch: Batch) -> tuple[Tensor, dict[str, Loss]]:
    """Log-probabilities (K) of a row, and the losses of its terms."""
    needs = run.terms.needs_of(*(batch.records[number] for number in row.records))
    with run.accelerator.autocast():
        known = run.policy.look(row, needs)
    known["reference"] = reference_of(run, row, batch, known["logp"])
    return known["logp"], run.terms.losses(row, batch, known)


def reference_of(run: Run, row: Row, batch: Batch, like_K: Tensor) -> Tensor:
    """The reference's log-probabilities of a row; zeros where the objective needs none."""
    parts: list[Floats] = []
    for record in (batch.records[number] for number in row.records):
        if record.sampled is not None and "reference" in record.sampled.kept:
            parts += record.sampled.kept["reference"]
        elif run.reference is not None and "reference" in run.terms.needs_of(record):
            parts += [run.reference[path] for path in record.paths]
        else:
            parts.append(np.zeros(record.scored, np.float32))
    return torch.from_numpy(np.concatenate(parts)).to(like_K.device)
