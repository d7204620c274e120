"""Entropy-adaptive fine-tuning: do not unlearn what the policy is sure of.

Diao et al. 2026, arXiv 2601.02151:

    L = - (H / ln 20)^alpha log pi(y_t | x, y_<t)

H, through which no gradient goes, is the entropy of the policy's 20 likeliest tokens, their
probabilities brought to a sum of 1. A token that is unlikely while the policy is undecided is something
to learn; one that is unlikely while it is sure of another is a conflict, and the step that would force
it forgets most. DFT (`sft` with `reweight: dft`) weighs both down alike.

Default: alpha 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from onestage.objectives import TOP, Scored
from onestage.objectives._likelihood import Weighed


@dataclass(frozen=True)
class EAFT(Weighed):
    paper = "2601.02151"
    equation = "`-(H / ln 20)^alpha log pi`, H the entropy of the 20 likeliest tokens"
    second_opinion = "the authors' code, as it was read"
    needs = frozenset({"logp", "top_entropy"})

    alpha: float = 1.0
    """Power of the weight; 0 is SFT."""

    def __post_init__(self) -> None:
        if self.alpha < 0:
            raise ValueError(f"eaft: alpha must be at least 0, got {self.alpha}")

    def _weight_K(self, batch: Scored) -> Tensor:
        share_K = batch.extra["top_entropy"] / math.log(TOP)
        return share_K.clamp(0.0, 1.0) ** self.alpha
