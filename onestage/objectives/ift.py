"""Intuitive fine-tuning: imitation of answers that the policy reads partly as its own guesses.

Hua et al. 2024, arXiv 2405.11870, as in the released code (TsinghuaC3I/Intuitive-Fine-Tuning):

    l_t = - log pi(y_t | x, m_<t),   m_s = (1 - mix) e(y_s) + mix e(argmax pi(. | x, y_<s))
    L = (1 / n) sum_t w_t l_t,   w_t = n c_t / sum_s c_s,   c_t = sum_{s >= t} gamma^(s - t) l_s

e is the embedding of a token. A first pass over the answer finds what the policy would have said at each
place (greedily; no gradient goes through that choice); in a second one each token of the answer is read
mixed with that guess, so that errors which the policy would make are in what it has to go on from. A
token counts by what is lost behind it (discounted by gamma), since it led there. The weights have a mean
of 1 in each answer, and a gradient goes through them, as in their code. `gamma: 0` takes no weights
(their code's special case); with `mix: 0` beside it L is SFT's, with the mean over answers.

Their code mixes embeddings of the start model, frozen; here they are the policy's, which it will be used
with. With adapters, which leave them alone, that is the same.

Of a conversation, later turns read those that are scored before them mixed, too, and prompts as they
stand. Two forward passes; the first is not gone back through, but is kept in memory. The mean is over
responses. Default: mix 0.2, gamma 0.95.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from onestage.objectives import Feedback, Measured, Need, Objective, Scored, Units
from onestage.objectives._likelihood import GOOD, good_N

TINY = 1e-12
"""Of losses that are all nothing: what is divided by."""


@dataclass(frozen=True)
class IFT(Objective):
    paper = "2405.11870"
    equation = (
        "`-w log pi` a token, read with a `mix` of guesses before it, w what is lost behind "
        "it (discounted by `gamma`, mean 1)"
    )
    at_start = "by the model"
    second_opinion = "the authors' code, as it was read"
    unit = "response"
    kinds = GOOD
    needs = frozenset({"logp", "mixed_logp"})

    mix: float = 0.2
    """The share of the guess in what is read of a token."""
    gamma: float = 0.95
    """How much of a loss counts one token earlier; 0: all tokens count alike."""

    def __post_init__(self) -> None:
        for name in ("mix", "gamma"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"ift: {name} must be in [0, 1], got {getattr(self, name)}")

    @property
    def numbers(self) -> Mapping[Need, float]:
        return {"mixed_logp": self.mix}

    def units(self, feedback: Feedback) -> Units:
        return feedback.units("response", feedback.weight_N * good_N(feedback))

    def losses(self, batch: Scored) -> Tensor:
        loss_K = -batch.extra["mixed_logp"]
        count_K = self._behind_K(loss_K, batch) if self.gamma else torch.ones_like(loss_K)
        counts_N = batch.per_response(count_K).clamp(min=TINY)
        return batch.per_response(loss_K * count_K) / counts_N

    def metrics(self, batch: Scored) -> dict[str, Tensor | Measured]:
        """What reading its own guesses costs the policy, in nats a token."""
        lost_K = batch.logp_K - batch.extra["mixed_logp"]
        return {"guessing_cost": batch.per_response(lost_K) / batch.feedback.tokens_N}

    def _behind_K(self, loss_K: Tensor, batch: Scored) -> Tensor:
        """c: the discounted sum of a token's loss and of those behind it in its response."""
        left_K = batch.feedback.tokens_N[batch.response_K] - batch.place_K() - 1
        # By doubling: after each turn the sums reach over twice as many tokens.
        step, sum_K = 1, loss_K
        while step < len(loss_K):
            later_K = torch.cat([sum_K[step:], sum_K.new_zeros(step)])
            sum_K = sum_K + self.gamma**step * later_K.where(left_K >= step, 0.0)
            step *= 2
        return sum_K
