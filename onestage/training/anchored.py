"""Drawing weights back to where they started: all alike, or each as much as a text depends on it.

    w <- w + min(1, lr nu F_w) (w_start - w)

beside the optimiser, as AdamW's decay is, so that Adam's own scale does not touch it. With F = 1 this
is L2-SP (Li et al. 2018, arXiv 1802.01483). EWC (Kirkpatrick et al. 2017, arXiv 1612.00796) takes F from
the diagonal of the Fisher information of what shall not be forgotten: here the mean over records of the
squared gradient of a record's log-likelihood under the start model, scaled to a mean of 1 over all
trained weights, so that nu means the same in both.

A fresh LoRA adapter starts with B = 0: the text's likelihood does not depend on A there, so A is free
and B alone is held, which holds their product.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from onestage.config import RecipeError
from onestage.data.encoded import Encoded
from onestage.data.packing import pack_records
from onestage.objectives import wide

if TYPE_CHECKING:
    from onestage.training.run import Run

Weights = dict[int, Tensor]
"""By identity of a trained weight (of its master, where it has one)."""


class Anchored:
    """Trained weights, where they started, and how strongly each bound holds each of them."""

    def __init__(
        self, run: Run, start: Weights, texts: Mapping[str, Sequence[Encoded] | None]
    ) -> None:
        """`start`: of the weights that are held; what else is trained (a value head) goes where it
        goes. `texts`: by bound, the records that weights are weighed by; None: all alike."""
        self.start = start
        self.fisher = {name: fisher(run, text) for name, text in texts.items() if text is not None}

    @torch.no_grad()
    def decay(self, weights: Sequence[Tensor], rate: float, nu: Mapping[str, float]) -> None:
        """Draw some weights back, by the multipliers of the bounds and their learning rate."""
        alike = rate * sum(value for name, value in nu.items() if name not in self.fisher)
        held = (weight for weight in weights if id(weight) in self.start)
        for weight in held if any(nu.values()) else ():
            part: Tensor | float = alike
            for name, found in self.fisher.items():
                part = part + rate * nu.get(name, 0.0) * found[id(weight)]
            to = self.start[id(weight)]
            if isinstance(part, Tensor):
                weight.add_(part.clamp(max=1.0) * (to - weight))
            else:
                weight.lerp_(to, min(1.0, part))


def fisher(run: Run, records: Sequence[Encoded]) -> Weights:
    """The diagonal of the Fisher information of some records, scaled to a mean of 1.

    Raises `RecipeError` where no weight has any, or some have none that is finite. Not for weights in
    parts (`choices.check_kept`).
    """
    was, trained = run.policy.training, [p for p in run.policy.parameters() if p.requires_grad]
    stepped = run.masters.of(trained)
    found = [torch.zeros_like(p, dtype=torch.float32) for p in stepped]
    run.policy.eval()
    for record in records[run.devices.rank :: run.devices.ranks]:
        (row,) = pack_records([record], run.options.row_budget).rows
        with run.accelerator.autocast():
            likelihood = run.policy(row).sum()
        run.accelerator.backward(likelihood)
        run.masters.gather()
        for total, weight in zip(found, stepped, strict=True):
            if weight.grad is not None:
                total.addcmul_(weight.grad.float(), weight.grad.float())
        run.optimizer.zero_grad(set_to_none=True)
    run.policy.train(was)
    found = [run.devices.add(total) for total in found]
    whole = float(sum(total.to(wide(total.device)).sum() for total in found))
    mean = whole / sum(total.numel() for total in found)
    if not math.isfinite(mean):
        raise RecipeError(
            "keep: by: fisher: the gradient of the text's likelihood is not finite, so no weight can be "
            "weighed by it; take model.dtype: float32, or by: anchor or kl"
        )
    if not mean > 0:
        raise RecipeError(
            "keep: by: fisher: the likelihood of the text depends on no trained weight, so none would "
            "be held; take by: anchor or kl"
        )
    return {id(weight): total / mean for weight, total in zip(stepped, found, strict=True)}
