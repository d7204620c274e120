"""A forest row through the policy: log-probabilities, the reference's beside them, its terms' losses.

The one path from a row to numbers, for the loop, for evaluations, for probes and for the step-0 laws.

Legend: K scored tokens of a row.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from onestage.data.encoded import Floats
from onestage.data.packing import Batch, Row
from onestage.models.readout import Said
from onestage.objectives import Loss
from onestage.objectives._host import there_of

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
    said, losses = row_terms(run, row, batch)
    # Of many ranks through all that any row of the step goes through, since they wait for each other's
    # gradients.
    # Else through the last pass alone: a first one that only found guesses need not go backward.
    last = "mixed_logp" if "mixed_logp" in said else "logp"
    through = list(said) if run.devices.ranks > 1 else [last]
    return weighed(losses, weights, counts, said, through), losses


def weighed(
    losses: Mapping[str, Loss],
    weights: Mapping[str, float],
    counts: Mapping[str, float],
    said: Said,
    through: Collection[str],
) -> Tensor:
    """What some losses add to the step's: each by its term's weight, over the step's units."""
    parts = [
        weights[name] / counts[name] * loss.loss_U.sum()
        for name, loss in losses.items()
        if counts.get(name)
    ]
    # A zero with a graph behind it, so that a row without any unit can go backward, too.
    nothing = torch.stack([0.0 * said[name].sum() for name in through]).sum()
    return sum(parts, start=nothing)


def row_terms(run: Run, row: Row, batch: Batch) -> tuple[Said, dict[str, Loss]]:
    """What the policy says of a row, and the losses of its terms."""
    with run.accelerator.autocast():
        said = run.devices.look(row, needs_of(run, row, batch))
    return said, losses_of(run, row, batch, said) if row.records else {}


def needs_of(run: Run, row: Row, batch: Batch) -> Collection[str]:
    """What is asked of the policy for a row; of many ranks the same of all rows of the step."""
    alone = run.devices.ranks == 1
    asked = batch.records if not alone else [batch.records[number] for number in row.records]
    return run.terms.needs_of(*asked)


def losses_of(run: Run, row: Row, batch: Batch, said: Said) -> dict[str, Loss]:
    """The losses of a row's terms, given what the policy says of it."""
    known = {**said, "reference": reference_of(run, row, batch, said["logp"])}
    return run.terms.losses(row, batch, known)


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
    return there_of(torch.from_numpy(np.concatenate(parts)), like_K.device)
