"""DPO-positive: a chosen answer must not become less likely than it was (Smaug).

Pal et al. 2024, arXiv 2402.13228:

    L = - log sigma(beta (D_w - D_l - penalty max(0, - D_w))),   D = log pi(y|x) - log pi_ref(y|x)

Where the two sides of a pair differ in a few tokens, DPO can widen the margin by making both less
likely.
The penalty counts every nat that the chosen side has lost against the reference.

Defaults: penalty 50, the paper's lambda, and beta 0.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from onestage.objectives import Objective, Scored


@dataclass(frozen=True)
class DPOP(Objective):
    paper = "2402.13228"
    equation = "`-log sigma(beta (D_w - D_l - penalty max(0, -D_w)))`"
    at_start = "ln 2"
    second_opinion = (
        "the paper's equation, and code of PaddleNLP run beside ours (the authors released none)"
    )
    unit = "pair"
    kinds = frozenset({"pair"})

    beta: float = 0.3
    penalty: float = 50.0
    """What a nat weighs that the chosen side has lost; the paper's lambda. 0 is DPO."""

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ValueError(f"dpop: beta must be positive, got {self.beta}")
        if self.penalty < 0:
            raise ValueError(f"dpop: penalty must be at least 0, got {self.penalty}")

    def losses(self, batch: Scored) -> Tensor:
        lost_P = (-batch.log_ratio_N()[batch.feedback.pair_P2[:, 0]]).clamp(min=0)
        return -F.logsigmoid(self.beta * (batch.margin_P() - self.penalty * lost_P))
