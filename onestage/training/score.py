"""Log-probabilities of a batch as an objective sees them, for loops of one's own."""

from __future__ import annotations

import torch

from onestage.data.packing import Batch
from onestage.models.policy import Policy
from onestage.objectives import Scored
from onestage.training import terms


def score(policy: Policy, batch: Batch, reference: Policy | None = None) -> Scored:
    """What `policy` (and `reference`) say of all responses of a batch, with their feedback.

    The batch is one of `pack`. Log-probabilities of the policy are differentiable, those of the
    reference are not; without one they are 0, which `sft` and others that compare with nothing do not
    look at. An objective makes the loss: `DPO(beta=0.1)(score(policy, batch, reference)).mean()`.
    """
    records = [batch.records[number] for row in batch.rows for number in row.records]
    numbers = [number for row in batch.rows for number in row.records]
    known = {"logp": torch.cat([policy(row) for row in batch.rows])}
    if reference is not None:
        with reference.evaluating():
            known["reference"] = torch.cat([reference(row) for row in batch.rows])
    return terms.score(records, known, numbers=numbers)
