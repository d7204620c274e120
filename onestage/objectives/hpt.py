"""HPT: reinforce where the policy sometimes succeeds, imitate where it does not.

Lv et al. 2025, arXiv 2509.04419. For each problem, by the number of sampled responses that are right:

    more than `gate`  ->  L_RL of the sampled responses
    no more           ->  sft_coef * NLL of the worked answer; what was sampled is dropped

L_RL is that of Dr. GRPO without a clip: A_i = R_i - mean(R) on the ratio, an entropy bonus of 0.001, no
KL. Both are token sums over the greatest length. The mean is over all that was sampled, whatever became
of it, so a token of an imitated answer weighs what one of a sampled response does. A problem without a
worked answer has nothing to switch to and stays with reinforcement.

The authors' code (`mix_src/mix_actor.py` of TsinghuaC3I/Unify-Post-Training) has the same L_RL, but
divides NLL by the number of imitated tokens and the entropy by that of all tokens, imitated ones too,
of what goes through the model at once: there the weight of imitation depends on how a batch is cut and
on how many problems are imitated in it. Where N tokens are, ours is theirs with sft_coef times N over
the greatest length. Neither sum is divided by a number of responses there.

Defaults: gate 0 (Qwen2.5-Math; 2 of 8 for Llama-3.1-8B) and sft_coef 1 (0.3 for 1.5B).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from onestage.objectives import Feedback, Measured, Need, Scored
from onestage.objectives._surrogate import (
    PolicyGradient,
    group_advantage,
    group_sums,
    rewards_N,
    surrogate,
)


@dataclass(frozen=True)
class HPT(PolicyGradient):
    paper = "2509.04419"
    equation = (
        "S(A), no clip, A = R_i - mean, if more than `gate` are right; else the NLL of the "
        "worked answer, and nothing sampled"
    )
    second_opinion = (
        "the authors' code, run beside ours, but for the mean that it takes over imitated tokens"
    )
    relative = True
    epsilon: float | None = None
    entropy_coef: float = 0.001
    loss_type: Literal["grpo", "dapo", "dr_grpo", "sum"] = "dr_grpo"
    scale_rewards: Literal["group", "batch", "none"] = "none"
    """As for GRPO."""
    eps: float = 1e-6
    gate: int = 0
    """Problems with this many right responses or fewer are imitated."""
    right_at: float = 1.0
    """A response with this reward or more is right."""
    sft_coef: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gate < 0 or self.sft_coef < 0:
            raise ValueError(
                f"gate and sft_coef must be at least 0, got {self.gate} and {self.sft_coef}"
            )

    @property
    def needs(self) -> frozenset[Need]:
        return super().needs | {"worked"}

    def trained_N(self, feedback: Feedback) -> Tensor:
        """Of each problem either what was sampled or the worked answer."""
        imitated_N = self.imitated_N(feedback)
        own_N, worked_N = feedback.are("response"), feedback.are("worked")
        return (own_N & ~imitated_N) | (worked_N & imitated_N)

    def imitated_N(self, feedback: Feedback) -> Tensor:
        """Mask (N) of the responses whose problem is imitated."""
        own_N, worked_N = feedback.are("response"), feedback.are("worked")
        right_N = (feedback.score_N >= self.right_at).float()
        shown_N = group_sums(worked_N.float(), worked_N, feedback) > 0
        return shown_N & (group_sums(right_N, own_N, feedback) <= self.gate)

    def advantage_K(self, batch: Scored) -> Tensor:
        group_N = self.units_N(batch.feedback)
        return group_advantage(batch, rewards_N(batch, self), group_N, self.scale_rewards, self.eps)

    def loss_K(self, batch: Scored) -> Tensor:
        worked_K = batch.feedback.are("worked")[batch.response_K]
        reinforced_K = surrogate(batch, batch.remembered["advantage"], self)
        return torch.where(worked_K, -self.sft_coef * batch.logp_K, reinforced_K)

    def metrics(self, batch: Scored) -> dict[str, Tensor | Measured]:
        own_N, imitated_N = batch.feedback.are("response"), self.imitated_N(batch.feedback)
        imitated_N = torch.where(own_N, imitated_N.float(), torch.nan)
        return {**super().metrics(batch), "imitated": imitated_N}
