"""Prefix-RFT: one completion of the group goes on from a demonstration, whose prefix is reinforced too.

Huang et al. 2025, arXiv 2507.01679. Of a group (eight in the paper) one completion, the hybrid, was
given the beginning of the worked answer (hint rule `prefix`). With b the mean reward of the others,

    A_i = R_i - b   for all of them, the hybrid included, which has no part in b

The hybrid's advantage holds for its own tokens and for those of the prefix, which are in the clipped
surrogate with the policy's own old log-probabilities. Of a prefix only the `top_entropy` share of
tokens of which the policy was least certain is trained on; the others have advantage 0. The rest is Dr.
GRPO: no deviation, token sums over the greatest length, no separate likelihood term.

The authors' code (`recipe/prefix_rft` of ZeroYuHuang/prefix_rft, `dr_grpo_prefix`) has A_i on the
prefix and on those without it, but gives the hybrid's own tokens its bare reward: it compares them with
the other completions of that prefix, of which there are none. It ranks the tokens of all prefixes that
go through the model at once, clips the ratio at 3 where A is negative (dual clip), and does not divide
the sum by the number of responses.

Where a rule hints all completions of a group there is none to compare them with: b is then their own
mean, and the prefix, common to all, has advantage 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from onestage.objectives import Feedback, Need, Scored
from onestage.objectives._host import records
from onestage.objectives._surrogate import PolicyGradient, group_means, group_sums, rewards_N


@dataclass(frozen=True)
class PrefixRFT(PolicyGradient):
    paper = "2507.01679"
    equation = (
        "S(A), A = R_i - mean of those without a hint; the hinted one's A also on the most "
        "uncertain fifth of its prefix"
    )
    second_opinion = "the authors' code, run beside ours, but for the hybrid's own tokens"
    loss_type: Literal["grpo", "dapo", "dr_grpo", "sum"] = "dr_grpo"
    top_entropy: float = 0.2
    """Share of a prefix's tokens that are trained on, rounded up."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.top_entropy <= 1:
            raise ValueError(f"top_entropy must be in [0, 1], got {self.top_entropy}")

    def trained_N(self, feedback: Feedback) -> Tensor:
        return feedback.are("response") | feedback.are("hint")

    def asks(self, again: bool) -> frozenset[Need]:
        return super().asks(again) | {"entropy"}

    def advantage_K(self, batch: Scored) -> Tensor:
        feedback, reward_N = batch.feedback, rewards_N(batch, self)
        hint_N, hybrid_N = feedback.are("hint"), hybrids_N(feedback)
        alone_N = feedback.are("response") & ~hybrid_N
        compared_N = group_sums(alone_N.float(), alone_N, feedback) > 0
        baseline_N = torch.where(
            compared_N,
            group_means(reward_N, alone_N, feedback),
            group_means(reward_N, hybrid_N, feedback),
        )
        advantage_N = reward_N - baseline_N
        of_hint_N = group_means(advantage_N, hybrid_N, feedback)
        advantage_K = torch.where(hint_N, of_hint_N, advantage_N)[batch.response_K]
        return torch.where(hint_N[batch.response_K] & ~self._uncertain_K(batch), 0.0, advantage_K)

    def _uncertain_K(self, batch: Scored) -> Tensor:
        """Mask (K) of the tokens of each response whose entropy is highest; of equals, the earlier."""
        entropy_K, place_K = batch.extra["entropy"], batch.place_K()
        order_K = torch.argsort(-entropy_K, stable=True)
        order_K = order_K[torch.argsort(batch.response_K[order_K], stable=True)]
        rank_K = torch.empty_like(place_K)
        rank_K[order_K] = place_K
        kept_N = (self.top_entropy * batch.feedback.tokens_N).ceil()
        return rank_K < kept_N[batch.response_K]


def hybrids_N(feedback: Feedback) -> Tensor:
    """Mask (N) of the sampled responses that were given a hint: those behind it in their record."""
    hint_N = feedback.are("hint")
    before_N = hint_N.long().cumsum(0)
    first = before_N.new_full((records(feedback),), len(hint_N) + 1)
    first.scatter_reduce_(0, feedback.record_N, before_N - hint_N.long(), "amin")
    return feedback.are("response") & (before_N > first[feedback.record_N])
