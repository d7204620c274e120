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

from onestage.objectives import Feedback, Scored
from onestage.objectives.grpo import GRPO


@dataclass(frozen=True)
class LUFFY(GRPO):
    uses_worked = True

    epsilon: float | None = None
    entropy_coef: float = 0.001
    loss_type: Literal["grpo", "dapo", "dr_grpo", "sum"] = "dr_grpo"
    scale_rewards: Literal["group", "batch", "none"] = "none"
    shaping: float = 0.1
    """gamma; the smaller, the more do unlikely tokens of the worked answer count."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shaping <= 0:
            raise ValueError(f"shaping must be positive, got {self.shaping}")

    def units_N(self, feedback: Feedback) -> Tensor:
        return feedback.are("response") | feedback.are("worked")

    def losses(self, batch: Scored) -> tuple[Tensor, dict[str, Tensor]]:
        loss_K, seen = super().losses(batch)
        worked_K = batch.feedback.are("worked")[batch.response_K]
        p_K = batch.logp_K.clamp(max=0.0).exp()
        shaped_K = -batch.kept["advantage"] * p_K / (p_K + self.shaping)
        return torch.where(worked_K, shaped_K, loss_K), seen
