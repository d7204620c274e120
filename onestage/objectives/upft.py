"""UPFT: imitate the beginnings of the policy's own answers.

Ji et al. 2025, arXiv 2503.02875. Answers to one problem agree in their first steps, right or wrong, so
the first tokens of one self-sampled answer are worth training on without any label:

    L = - sum_{t <= T_i} log pi(y_t | x, y_<t),   T_i = first_tokens, or the whole answer

for a share `full_share` of the problems the whole answer, which keeps answers from losing their end.
The mean is over answers. Rewards are not looked at; every sampled answer is used (`num_generations:
1`).

Which problems are trained on in full is decided for all that was sampled together: each time the share
adds up to one more problem, in their order. It is random as far as that order is.

The authors' code (1KE-JI/UPFT) divides each answer's loss by the number of its trained tokens, so that
an answer in full weighs what a beginning does; here losses of tokens are summed, and an answer in full
weighs more. Their script also cuts the answer behind its first tokens and teaches to end there, under
an instruction that asks for a first step only; here the end is taught by whole answers alone.

Defaults: 16 first tokens (the paper's range is about 8 to 32) and a share of 0.1. The authors'
instruction to write the first step only is a matter of the prompts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from onestage.objectives import Objective, Scored


@dataclass(frozen=True)
class UPFT(Objective):
    paper = "2503.02875"
    equation = "`- log pi` of the first 16 tokens, of all tokens for a tenth of the problems"
    second_opinion = (
        "the authors' code, as it was read, but for the mean that it takes over an answer's tokens"
    )
    unit = "response"
    kinds = frozenset({"check"})
    needs = frozenset({"logp"})

    first_tokens: int = 16
    full_share: float = 0.1
    """Share of problems whose answers are trained on in full."""

    def __post_init__(self) -> None:
        if self.first_tokens < 1:
            raise ValueError(f"first_tokens must be at least 1, got {self.first_tokens}")
        if not 0 <= self.full_share <= 1:
            raise ValueError(f"full_share must be in [0, 1], got {self.full_share}")

    def remember(self, batch: Scored, again: bool) -> dict[str, Tensor]:
        """`trained`: 1 for the tokens that have a loss."""
        _, number_N = torch.unique_consecutive(batch.feedback.record_N, return_inverse=True)
        due_N = ((number_N + 1) * self.full_share + TINY).floor()
        full_N = due_N > (number_N * self.full_share + TINY).floor()
        first_K = batch.place_K() < self.first_tokens
        return {"trained": (first_K | full_N[batch.response_K]).float()}

    def losses(self, batch: Scored) -> Tensor:
        return batch.per_response(-batch.logp_K * batch.remembered["trained"])


TINY = 1e-9
"""So that ten tenths are one problem in floating point, too."""
