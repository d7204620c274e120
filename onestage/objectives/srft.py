"""SRFT: imitation and reinforcement in one loss, each weighed by the policy's entropy.

Fu et al. 2025, arXiv 2506.19767. With the worked answer y* and H the mean entropy of a response's
tokens,

    L = w_SFT NLL(y*) - A* sum_t pi(y*_t) + sum over sampled y of  -w_RL log pi(y)  where y is right,
                                                                        log pi(y)  where it is wrong
    w_SFT = 0.5 exp(-H),   w_RL = 0.1 exp(H)          (no gradient goes through either)

A* is the worked answer's reward less the mean of the joint group; its own probability is taken as 1 and
nothing is clipped. A policy that is unsure is taught less by imitation and more by what it got right. H
is that of each response on its own (so does the re-implementation of HPT's authors; the paper writes
one H). On sampled responses the ratio stands for log pi: the same gradient where they are used once,
the right one where they are used again. Token sums over the greatest length, mean over responses,
worked ones included, as in LUFFY, on which the method builds.

The authors' own code could not be had. HPT's authors' (`offline_loss_type: srft`,
TsinghuaC3I/Unify-Post-Training) takes the mean over the worked answers' tokens for their NLL, reshapes
pi to pi / (pi + 0.1) as LUFFY does unless told otherwise, and has an entropy bonus of 0.001
(`entropy_coef` here).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from onestage.objectives import Feedback, Need, Scored
from onestage.objectives._surrogate import PolicyGradient, group_advantage, rewards_N, surrogate


@dataclass(frozen=True)
class SRFT(PolicyGradient):
    paper = "2506.19767"
    equation = (
        "S(A), no clip, A = 0.1 exp(H) where right, -1 where wrong; worked answer: 0.5 "
        "exp(-H) NLL - A p"
    )
    second_opinion = (
        "HPT's authors' code, run beside ours, but for its reshaping and the mean that it "
        "takes over imitated tokens (SRFT's own could not be had)"
    )
    epsilon: float | None = None
    loss_type: Literal["grpo", "dapo", "dr_grpo", "sum"] = "dr_grpo"
    scale_rewards: Literal["group", "batch", "none"] = "none"
    """Of the joint group, on which only the worked answer's advantage depends."""
    eps: float = 1e-6
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
    def needs(self) -> frozenset[Need]:
        return super().needs | {"entropy", "worked"}

    def units_N(self, feedback: Feedback) -> Tensor:
        return feedback.are("response") | feedback.are("worked")

    def advantage_K(self, batch: Scored) -> Tensor:
        group_N = self.units_N(batch.feedback)
        return group_advantage(batch, rewards_N(batch, self), group_N, self.scale_rewards, self.eps)

    def weighs_K(self, batch: Scored) -> Tensor:
        """The worked answer's advantage; w_RL of right and -1 of wrong responses."""
        right_N = batch.feedback.score_N >= self.right_at
        own_N = torch.where(right_N, self.positive_coef * _entropy_N(batch).exp(), -1.0)
        worked_K = batch.feedback.are("worked")[batch.response_K]
        return torch.where(worked_K, batch.remembered["advantage"], own_N[batch.response_K])

    def loss_K(self, batch: Scored) -> Tensor:
        worked_K = batch.feedback.are("worked")[batch.response_K]
        likelihood_K = self.sft_coef * (-_entropy_N(batch)).exp()[batch.response_K] * batch.logp_K
        demonstrated_K = (
            -likelihood_K - batch.remembered["advantage"] * batch.logp_K.clamp(max=0.0).exp()
        )
        return torch.where(worked_K, demonstrated_K, surrogate(batch, self.weighs_K(batch), self))


def _entropy_N(batch: Scored) -> Tensor:
    """Mean entropy of each response's tokens, through which no gradient goes."""
    return batch.per_response(batch.extra["entropy"].detach()) / batch.feedback.tokens_N
