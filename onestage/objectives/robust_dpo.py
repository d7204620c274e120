"""Robust DPO: the loss that noisy preferences would have without their noise.

Chowdhury et al. 2024, arXiv 2403.00409. If a preference is recorded the wrong way round with
probability e, the mean over the noise of

    L = ((1 - e) l(h) - e l(-h)) / (1 - 2 e),   l(h) = - log sigma(beta h),   h = D_w - D_l

is DPO's loss on the true preferences. cDPO (`dpo` with `label_smoothing`) adds the swapped loss where
this one takes it away: it is stable, and its minimum is at a margin of log((1 - e) / e) / beta whatever
the truth. This one has no lower bound, since a wide margin earns more in the second term than the first
can lose.

e is a fact about the data, which the method takes as known; 0.1 is our default, not a published one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from onestage.objectives import Objective, Scored


@dataclass(frozen=True)
class RobustDPO(Objective):
    paper = "2403.00409"
    equation = (
        "`((1 - e) l(h) - e l(-h)) / (1 - 2 e)`, l DPO's loss, e = `label_smoothing`; no "
        "lower bound"
    )
    at_start = "ln 2"
    second_opinion = "TRL's own code"
    unit = "pair"
    kinds = frozenset({"pair"})
    lowest = None

    beta: float = 0.1
    label_smoothing: float = 0.1
    """e: probability that a preference is recorded the wrong way round, in [0, 0.5)."""

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ValueError(f"robust_dpo: beta must be positive, got {self.beta}")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(
                f"robust_dpo: label_smoothing must be in [0, 0.5), got {self.label_smoothing}"
            )

    def losses(self, batch: Scored) -> Tensor:
        reward_P, e = self.beta * batch.margin_P(), self.label_smoothing
        right_P, swapped_P = -F.logsigmoid(reward_P), -F.logsigmoid(-reward_P)
        return ((1 - e) * right_P - e * swapped_P) / (1 - 2 * e)
