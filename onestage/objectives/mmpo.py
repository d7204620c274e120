"""Margin matching: how much better the chosen side is, not only that it is.

Kim et al. 2024, arXiv 2410.03145:

    p = sigma(gamma (s_w - s_l))
    L = - p log sigma(h) - (1 - p) log sigma(-h),   h = beta (D_w - D_l)

with s the scores that the two sides were given. The minimum is h = gamma (s_w - s_l): equal scores pull
a pair together, while DPO pushes it apart for ever. A pair without scores has p = 1, which is DPO. The
reward model's form is `bradley_terry` with `target: soft`.

Scores lie in [0, 1] here, so gamma is the log-odds of the largest difference there is: a published
gamma, which is per point of the authors' scores, times the width of their scale. Defaults: beta 0.01 and
gamma 2.2, the paper's for UltraFeedback as they stand; scores from 1 to 5 want four times that gamma.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from onestage.objectives import Objective, Scored


@dataclass(frozen=True)
class MMPO(Objective):
    paper = "2410.03145"
    equation = (
        "`-p log sigma(h) - (1 - p) log sigma(-h)`, p = `sigma(gamma (s_w - s_l))`, h = beta "
        "(D_w - D_l)"
    )
    at_start = "ln 2"
    second_opinion = "TRL's own code (equal scores)"
    unit = "pair"
    kinds = frozenset({"pair"})

    beta: float = 0.01
    gamma: float = 2.2
    """Log-odds of a preference between the best and the worst score there is."""

    def __post_init__(self) -> None:
        if self.beta <= 0 or self.gamma <= 0:
            raise ValueError(
                f"mmpo: beta and gamma must be positive, got {self.beta} and {self.gamma}"
            )

    def losses(self, batch: Scored) -> Tensor:
        reward_P = self.beta * batch.margin_P()
        sure_P = torch.sigmoid(self.gamma * batch.apart_P(batch.feedback.score_N)).nan_to_num(1.0)
        return -sure_P * F.logsigmoid(reward_P) - (1 - sure_P) * F.logsigmoid(-reward_P)
