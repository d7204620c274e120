"""LUFFY: the worked answer is one more member of the group.

Yan et al. 2025, arXiv 2504.14945. The group of a problem is what was sampled and the worked answer,
which others have written; advantages are A_i = R_i - mean over both, without a deviation. On sampled
tokens the loss is -A r, without a clip; on tokens of the worked answer, whose own probability is taken
as 1,

    - A f(pi),   f(p) = p / (p + gamma),   gamma = 0.1

whose gradient does not vanish where the policy finds the right token unlikely, as that of -A p does. A
response's loss is the sum over its tokens over the greatest length; the mean is over responses, the
worked ones included (the authors' code takes the sum: another learning rate where nothing clips
gradients).

Defaults as published: gamma 0.1, no KL, entropy bonus 0.001; seven sampled responses and one worked. A
problem without a worked answer is learnt from as in Dr. GRPO.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from onestage.objectives import Feedback, Need, Scored
from onestage.objectives._surrogate import PolicyGradient, group_advantage, rewards_N, surrogate


@dataclass(frozen=True)
class LUFFY(PolicyGradient):
    paper = "2504.14945"
    equation = (
        "S(A), no clip, A = R_i - mean of the group and the worked answer; worked tokens: -A "
        "p / (p + 0.1)"
    )
    second_opinion = "the authors' code, run beside ours"
    epsilon: float | None = None
    entropy_coef: float = 0.001
    loss_type: Literal["grpo", "dapo", "dr_grpo", "sum"] = "dr_grpo"
    scale_rewards: Literal["group", "batch", "none"] = "none"
    """As for GRPO."""
    eps: float = 1e-6
    shaping: float = 0.1
    """gamma; the smaller, the more do unlikely tokens of the worked answer count."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shaping <= 0:
            raise ValueError(f"shaping must be positive, got {self.shaping}")

    @property
    def needs(self) -> frozenset[Need]:
        return super().needs | {"worked"}

    def units_N(self, feedback: Feedback) -> Tensor:
        return feedback.are("response") | feedback.are("worked")

    def advantage_K(self, batch: Scored) -> Tensor:
        group_N = self.units_N(batch.feedback)
        return group_advantage(batch, rewards_N(batch, self), group_N, self.scale_rewards, self.eps)

    def loss_K(self, batch: Scored) -> Tensor:
        advantage_K = batch.remembered["advantage"]
        worked_K = batch.feedback.are("worked")[batch.response_K]
        p_K = batch.logp_K.clamp(max=0.0).exp()
        shaped_K = -advantage_K * p_K / (p_K + self.shaping)
        return torch.where(worked_K, shaped_K, surrogate(batch, advantage_K, self))
