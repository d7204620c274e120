"""RLOO: each response is compared with the mean of the others (REINFORCE leave-one-out).

Ahmadian et al. 2024, arXiv 2402.14740: of G completions of one prompt with rewards R,

    A_i = R_i - mean_{j != i} R_j = G / (G - 1) (R_i - mean(R)),   R = r - beta (log pi - log pi_ref)

for the whole response as one action: log-ratios and log-probabilities are summed over its tokens. The
baseline does not depend on the response it is taken off, so the gradient has no bias and needs no
standard deviation. A response alone in its group has nothing to be compared with: advantage 0.

Defaults: beta 0.03 in the reward, as published. There responses are used once; where they are used
again tokens' ratios are clipped as in PPO.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from onestage.objectives import Scored, wide
from onestage.objectives._surrogate import PolicyGradient, group_sums, rewards_N


@dataclass(frozen=True)
class RLOO(PolicyGradient):
    paper = "2402.14740"
    equation = (
        "S(A), A = R_i - mean of the others, R less 0.03 times the log-ratio of the whole response"
    )
    second_opinion = "TRL's own code (first use)"
    relative = True
    beta: float = 0.03
    kl_in: Literal["loss", "reward"] = "reward"
    loss_type: Literal["grpo", "dapo", "dr_grpo", "sum"] = "sum"

    def advantage_K(self, batch: Scored) -> Tensor:
        feedback, reward_N = batch.feedback, rewards_N(batch, self)
        reward_N = reward_N.to(wide(reward_N.device))
        group_N = self.units_N(feedback)
        others_N = group_sums(group_N, group_N, feedback) - 1
        baseline_N = (group_sums(reward_N, group_N, feedback) - reward_N) / others_N.clamp(min=1)
        advantage_N = torch.where(others_N > 0, reward_N - baseline_N, 0.0)
        return advantage_N[batch.response_K]
