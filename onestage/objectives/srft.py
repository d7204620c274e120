"""SRFT: imitation and reinforcement in one loss, each weighed by the policy's entropy.

Fu et al. 2025, arXiv 2506.19767. With the worked answer y* and H the mean entropy of a response's
tokens,

    L = w_SFT NLL(y*) - A* sum_t pi(y*_t) + sum over sampled y of  -w_RL log pi(y)  where y is right,
                                                                        log pi(y)  where it is wrong
    w_SFT = 0.5 exp(-H),   w_RL = 0.1 exp(H)          (no gradient goes through either)

A* is the worked answer's reward less the mean of the joint group; its own probability is taken as 1 and
nothing is clipped. A policy that is unsure is taught less by imitation and more by what it got right. H
is that of each response on its own (so does the re-implementation in HPT's code; the paper writes one
H). On sampled responses the ratio stands for log pi: the same gradient where they are used once, the
right one where they are used again. Token sums over the greatest length, mean over responses, worked
ones included, as in LUFFY, on which the method builds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from onestage.objectives import Extra, Feedback, Scored
from onestage.objectives.grpo import GRPO


@dataclass(frozen=True)
class SRFT(GRPO):
    uses_worked = True

    epsilon: float | None = None
    loss_type: Literal["grpo", "dapo", "dr_grpo", "sum"] = "dr_grpo"
    scale_rewards: Literal["group", "batch", "none"] = "none"
    """Of the joint group, on which only the worked answer's advantage depends."""
    sft_coef: float = 0.5
    """Of w_SFT."""
    positive_coef: float = 0.1
    """Of w_RL."""
    right_at: float = 1.0
    """A response with this reward or more is right."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sft_coef < 0 or self.positive_coef < 0:
            raise ValueError(
                "sft_coef and positive_coef must be at least 0, got "
                f"{self.sft_coef} and {self.positive_coef}"
            )

    @property
    def reads(self) -> frozenset[Extra]:  # type: ignore[override]
        return frozenset({"entropy"})

    def units_N(self, feedback: Feedback) -> Tensor:
        return feedback.are("response") | feedback.are("worked")

    def losses(self, batch: Scored) -> tuple[Tensor, dict[str, Tensor]]:
        feedback, response_K = batch.feedback, batch.response_K
        worked_K = feedback.are("worked")[response_K]
        entropy_N = batch.per_response(batch.extra["entropy"].detach()) / feedback.tokens_N
        right_N = feedback.score_N >= self.right_at
        own_N = torch.where(right_N, self.positive_coef * entropy_N.exp(), -1.0)
        kept_K = batch.kept["advantage"]
        advantage_K = torch.where(worked_K, kept_K, own_N[response_K])
        loss_K, seen = super().losses(replace(batch, kept={**batch.kept, "advantage": advantage_K}))
        likelihood_K = self.sft_coef * (-entropy_N).exp()[response_K] * batch.logp_K
        demonstrated_K = -likelihood_K - kept_K * batch.logp_K.clamp(max=0.0).exp()
        return torch.where(worked_K, demonstrated_K, loss_K), seen
