"""UFT of Liu et al.: reinforcement behind a hint, imitation of the hint.

Liu, Farina and Ozdaglar 2025 (arXiv 2505.16984), Eq. 3.3. A problem is given with the first steps of
its worked solution; the policy's continuations are learnt from by GRPO, and the hint by its likelihood:

    J = J_GRPO(continuations) - beta KL(pi || pi_ref) + beta sum_{hint} log pi(a* | s*)

The likelihood is summed over a problem's hint tokens, once for the whole group, and its mean is over
problems, those without a hint included. KL and likelihood share beta = 0.001. `hint_reduction: token`
is what the authors' code does instead: the mean over all hint tokens of a rollout. Their runs have an
entropy bonus of 0.001, which the paper's objective lacks: `entropy_coef: 0.001` adds it. How much of a
solution is given is the stream's hint rule (`cosine` is theirs); without hints this is GRPO. With
`hint_reduction: token` and that bonus loss and gradient are those of their code
(`verl/workers/actor/dp_actor.py` of liumy2010/UFT), which also keeps the logits of hints between -100
and 100.

An objective's loss is a mean over its own units, here those of GRPO. So a hint token weighs hint_coef
times (units / problems), or (units / hint tokens), of everything that was sampled together: exact where
that is one batch. Where it is trained on in several, a batch that has more tokens than the others
counts its hints for that much less, and the other way round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from onestage.objectives import Feedback, Measured, Scored, Units
from onestage.objectives._host import places
from onestage.objectives._surrogate import PolicyGradient, group_advantage, rewards_N


@dataclass(frozen=True)
class Hinted(PolicyGradient):
    paper = "2505.16984"
    equation = "S(A) as `grpo`, KL 0.001; beside it 0.001 times the hint's negative log-likelihood"
    second_opinion = "the authors' code, run beside ours (`hint_reduction: token`)"
    relative = True
    beta: float = 0.001
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """As for GRPO."""
    eps: float = 1e-6
    hint_coef: float = 0.001
    """Coefficient of the hint's log-likelihood; the paper's is beta."""
    hint_reduction: Literal["sum", "token"] = "sum"
    """`sum`: over a problem's hint tokens, mean over problems (the paper). `token`: mean over tokens."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hint_coef < 0:
            raise ValueError(f"hint_coef must be at least 0, got {self.hint_coef}")

    def advantage_K(self, batch: Scored) -> Tensor:
        group_N = self.units_N(batch.feedback)
        return group_advantage(batch, rewards_N(batch, self), group_N, self.scale_rewards, self.eps)

    def units(self, feedback: Feedback) -> Units:
        """Those of GRPO, then the hints, which count nothing in the mean."""
        own, hint_M = super().units(feedback), places(feedback, _hint_N)
        assert own.counted_U is not None
        return Units(
            torch.cat([own.weight_U, feedback.weight_N[hint_M]]),
            torch.cat([own.record_U, feedback.record_N[hint_M]]),
            torch.cat([own.counted_U, torch.zeros_like(hint_M, dtype=torch.bool)]),
        )

    def remember(self, batch: Scored, again: bool) -> dict[str, Tensor]:
        """`hint`: what the loss of a hint's token is multiplied by."""
        feedback, hint_N = batch.feedback, batch.feedback.are("hint")
        if self.hint_reduction == "token":
            shared = (feedback.weight_N * feedback.tokens_N)[hint_N].sum()
        else:
            # A record's responses are neighbours, so the first of each counts problems.
            first_N = torch.ones_like(hint_N)
            first_N[1:] = feedback.record_N[1:] != feedback.record_N[:-1]
            shared = feedback.weight_N[first_N].sum()
        scale = self.hint_coef * self.units(feedback).count / shared.clamp(min=1e-12)
        hint_K = torch.where(hint_N, scale, 0.0)[batch.response_K]
        return {**super().remember(batch, again), "hint": hint_K}

    def losses(self, batch: Scored) -> Tensor:
        nll_N = batch.per_response(-batch.logp_K * batch.remembered["hint"])
        return torch.cat([super().losses(batch), nll_N[places(batch.feedback, _hint_N)]])

    def metrics(self, batch: Scored) -> dict[str, Tensor | Measured]:
        mean_N = batch.per_response(batch.logp_K) / batch.feedback.tokens_N
        hint_logp_N = torch.where(batch.feedback.are("hint"), mean_N, torch.nan)
        return {**super().metrics(batch), "hint_logp": hint_logp_N}


def _hint_N(feedback: Feedback) -> Tensor:
    return feedback.are("hint")
