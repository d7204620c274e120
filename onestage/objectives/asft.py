"""Anchored SFT: DFT's weights, and a leash to the reference (Zhu et al. 2025, arXiv 2509.23753).

    L = - p log pi(y_t | x, y_<t) + kl_coef KL(pi_ref || pi),   p = pi(y_t | x, y_<t)

No gradient goes through the weight p, which takes away the 1/p in SFT's gradient (`sft` with `reweight:
dft`) and with it what keeps the policy from drifting: the KL, over the whole vocabulary at each token,
gives that back. It is KL(reference || policy), as in the authors' code.

The reference is run in each step. Default: kl_coef 0.1, the released code's.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from onestage.objectives import Feedback, Measured, Objective, Scored, Units
from onestage.objectives._likelihood import GOOD, good_tokens, probability_K


@dataclass(frozen=True)
class ASFT(Objective):
    paper = "2509.23753"
    equation = "`-p log pi + kl_coef KL(pi_ref to pi)` over the vocabulary"
    at_start = "as DFT"
    second_opinion = "the authors' code, as it was read"
    unit = "token"
    kinds = GOOD
    needs = frozenset({"logp", "reference", "forward_kl"})

    kl_coef: float = 0.1
    """Weight of the KL to the reference; 0 is DFT."""

    def __post_init__(self) -> None:
        if self.kl_coef < 0:
            raise ValueError(f"asft: kl_coef must be at least 0, got {self.kl_coef}")

    def units(self, feedback: Feedback) -> Units:
        return good_tokens(feedback)

    def losses(self, batch: Scored) -> Tensor:
        learnt_K = -batch.logp_K * probability_K(batch.logp_K)
        return learnt_K + self.kl_coef * batch.extra["forward_kl"]

    def metrics(self, batch: Scored) -> dict[str, Tensor | Measured]:
        kl_N = batch.per_response(batch.extra["forward_kl"])
        return {"forward_kl": kl_N / batch.feedback.tokens_N}
