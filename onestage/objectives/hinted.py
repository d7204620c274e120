"""UFT of Liu et al.: reinforcement behind a hint, imitation of the hint.

Liu, Farina and Ozdaglar 2025 (arXiv 2505.16984), Eq. 3.3. A problem is given with the first steps of
its worked solution; the policy's continuations are learnt from by GRPO, and the hint by its likelihood:

    J = J_GRPO(continuations) - beta KL(pi || pi_ref) + beta sum_{hint} log pi(a* | s*)

The likelihood is summed over a problem's hint tokens, once for the whole group, and its mean is over
problems, those without a hint included. KL and likelihood share beta = 0.001. `hint_reduction: token`
is what the authors' code does instead: the mean over all hint tokens of a rollout. Their runs have an
entropy bonus of 0.001, which the paper's objective lacks: `entropy_coef: 0.001` adds it. How much of a
solution is given is the stream's hint rule (`cosine` is theirs); without hints this is GRPO.

An objective's loss is a mean over its own units, here those of GRPO. So a hint token weighs hint_coef
times (units / problems), or (units / hint tokens), of everything that was sampled together: exact where
that is one batch. Where it is trained on in several, a batch that has more tokens than the others
counts its hints for that much less, and the other way round.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from onestage.objectives import Loss, Measured, Scored
from onestage.objectives.grpo import GRPO


@dataclass(frozen=True)
class Hinted(GRPO):
    beta: float = 0.001
    hint_coef: float = 0.001
    """Coefficient of the hint's log-likelihood; the paper's is beta."""
    hint_reduction: Literal["sum", "token"] = "sum"
    """`sum`: over a problem's hint tokens, mean over problems (the paper). `token`: mean over tokens."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hint_coef < 0:
            raise ValueError(f"hint_coef must be at least 0, got {self.hint_coef}")

    def weigh(self, batch: Scored, again: bool) -> dict[str, Tensor]:
        feedback = batch.feedback
        hint_N = feedback.are("hint")
        if self.hint_reduction == "token":
            shared = (feedback.weight_N * feedback.tokens_N)[hint_N].sum()
        else:
            first_N = torch.ones_like(hint_N)
            first_N[1:] = feedback.record_N[1:] != feedback.record_N[:-1]
            shared = feedback.weight_N[first_N].sum()
        scale = self.hint_coef * self.count(feedback) / shared.clamp(min=1e-12)
        return {
            **super().weigh(batch, again),
            "hint": torch.where(hint_N, scale, 0.0)[batch.response_K],
        }

    def __call__(self, batch: Scored) -> Loss:
        loss, feedback = super().__call__(batch), batch.feedback
        hint_N = feedback.are("hint")
        nll_N = batch.per_response(-batch.logp_K * batch.kept["hint"])
        record_M = feedback.record_N[hint_N]
        logp_M = (batch.per_response(batch.logp_K.detach()) / feedback.tokens_N)[hint_N]
        return replace(
            loss,
            loss_U=torch.cat([loss.loss_U, (nll_N * feedback.weight_N)[hint_N]]),
            weight_U=torch.cat([loss.weight_U, torch.zeros_like(logp_M)]),
            record_U=torch.cat([loss.record_U, record_M]),
            metrics={**loss.metrics, "hint_logp": Measured(logp_M, record_M)},
        )
