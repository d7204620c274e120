"""GRPO: the rest of the group is the baseline.

Shao et al. 2024, arXiv 2402.03300: of G completions of one prompt with rewards R,

    A_i = (R_i - mean(R)) / (std(R) + eps)

on every token of completion i, in the clipped surrogate of `_surrogate`; std is that of a sample
(n - 1), eps 1e-6, as in verl, on which UFT's experiments ran. Variants, as options:

    DAPO (arXiv 2503.14476)      loss_type: dapo, epsilon_high: 0.28, beta: 0
    Dr. GRPO (arXiv 2503.20783)  loss_type: dr_grpo, scale_rewards: none
    GSPO (arXiv 2507.18071)      importance_sampling_level: sequence, loss_type: grpo, epsilon: 3e-4,
                                 epsilon_high: 4e-4
    as first published           loss_type: grpo, beta: 0.04

Defaults are TRL's (token mean, no KL term).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from onestage.objectives import Scored
from onestage.objectives._surrogate import PolicyGradient, group_advantage, rewards_N


@dataclass(frozen=True)
class GRPO(PolicyGradient):
    paper = "2402.03300"
    equation = "S(A), A = (R_i - mean) / (std + 1e-6) of the group"
    second_opinion = "TRL's own code"
    relative = True
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """What centred rewards are divided by: the deviation in the group, in all that was sampled together
    (arXiv 2508.08221), or nothing."""
    eps: float = 1e-6

    def advantage_K(self, batch: Scored) -> Tensor:
        group_N = self.units_N(batch.feedback)
        return group_advantage(batch, rewards_N(batch, self), group_N, self.scale_rewards, self.eps)
