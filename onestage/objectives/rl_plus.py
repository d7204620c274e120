"""RL-PLUS: the worked answer by a ratio to a mixture, and unlikely right tokens first.

Dong et al. 2025, arXiv 2508.00222. On sampled tokens this is Dr. GRPO without a clip; on tokens of the
worked answer, which others have written, with p the policy's probability and q that before the update,

    - A (1 - p)^focus r,   r = 2 p / (q + (q + 1) / 2)

r stands for the ratio to the policy that wrote the worked answer, which nobody knows: it is taken as a
half q and a half of certainty, and mixed with q, so that r stays below 4 where p / q may explode. No
gradient goes through the factor (1 - p)^focus, which favours right tokens that the policy finds
unlikely. A is the reward less the mean of the sampled responses alone, without a deviation.

Defaults as in the released code: focus 1/2, no clip, no KL, entropy bonus 0.001; seven sampled responses
and one worked. A problem without a worked answer is learnt from as in Dr. GRPO.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from onestage.objectives import Feedback, Need, Scored
from onestage.objectives._surrogate import PolicyGradient, group_means, rewards_N, surrogate


@dataclass(frozen=True)
class RLPlus(PolicyGradient):
    paper = "2508.00222"
    equation = (
        "S(A), no clip, A = R_i - mean of the sampled; worked tokens: -A sqrt(1 - p) 2 p / (q"
        " + (q + 1) / 2), q the old probability"
    )
    second_opinion = "the authors' code, run beside ours"

    epsilon: float | None = None
    entropy_coef: float = 0.001
    loss_type: Literal["grpo", "dapo", "dr_grpo", "sum"] = "dr_grpo"
    focus: float = 0.5
    """Power of 1 - p: the larger, the less do likely tokens of the worked answer count."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.focus < 0:
            raise ValueError(f"focus must be at least 0, got {self.focus}")

    @property
    def needs(self) -> frozenset[Need]:
        return super().needs | {"worked"}

    def units_N(self, feedback: Feedback) -> Tensor:
        return feedback.are("response") | feedback.are("worked")

    def advantage_K(self, batch: Scored) -> Tensor:
        feedback, reward_N = batch.feedback, rewards_N(batch, self)
        mean_N = group_means(reward_N, feedback.are("response"), feedback)
        return (reward_N - mean_N)[batch.response_K]

    def loss_K(self, batch: Scored) -> Tensor:
        advantage_K = batch.remembered["advantage"]
        worked_K = batch.feedback.are("worked")[batch.response_K]
        logp_K = batch.logp_K.clamp(max=0.0)
        p_K = logp_K.exp()
        q_K = batch.remembered.get("old_logp", logp_K.detach()).clamp(max=0.0).exp()
        ratio_K = 2 * p_K / (q_K + (q_K + 1) / 2)
        favoured_K = -advantage_K * (1 - p_K.detach()) ** self.focus * ratio_K
        return torch.where(worked_K, favoured_K, surrogate(batch, advantage_K, self))
