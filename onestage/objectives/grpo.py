"""GRPO: the rest of the group is the baseline.

Shao et al. 2024, arXiv 2402.03300: of G completions of one prompt with rewards R,

    A_i = (R_i - mean(R)) / (std(R) + eps)

on every token of completion i, in the clipped surrogate of `policy_gradient`; std is that of a sample
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

import torch
from torch import Tensor

from onestage.objectives import Feedback, Scored
from onestage.objectives._surrogate import PolicyGradient, group_means, group_sums


@dataclass(frozen=True)
class GRPO(PolicyGradient):
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """What centred rewards are divided by: the deviation in the group, in all that was sampled together
    (arXiv 2508.08221), or nothing."""
    eps: float = 1e-6

    def advantage_K(self, batch: Scored) -> Tensor:
        return self.advantage_N(self.reward_N(batch), batch.feedback)[batch.response_K]

    def advantage_N(self, reward_N: Tensor, feedback: Feedback) -> Tensor:
        """Advantage (N) of each response in its group."""
        group_N = self.units_N(feedback)
        centred_N = reward_N - group_means(reward_N, group_N, feedback)
        if self.scale_rewards == "none":
            return centred_N
        if self.scale_rewards == "batch":
            return centred_N / (_deviation(reward_N[group_N]) + self.eps)
        square_N = group_sums(centred_N**2, group_N, feedback)
        count_N = group_sums(torch.ones_like(reward_N), group_N, feedback)
        return centred_N / ((square_N / (count_N - 1).clamp(min=1)).sqrt() + self.eps)


def _deviation(value_M: Tensor) -> Tensor:
    return value_M.std() if len(value_M) > 1 else value_M.new_zeros(())
