"""Identity preference optimisation (Azar et al. 2023, arXiv 2310.12036, Eq. 17).

    L = (D_w - D_l - 1 / (2 beta))^2,   D = log pi(y|x) - log pi_ref(y|x)

The paper writes D as the log-ratio of whole responses, which is the default. TRL divides each D by
its response's length; `average=True` does so too.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from onestage.data.record import Kind
from onestage.objectives import Feedback, Loss, Objective, Scored, Unit, pair_loss, pair_weight_P


@dataclass(frozen=True)
class IPO(Objective):
    beta: float = 0.1
    """The paper's tau: the log-ratio margin aims at 1 / (2 beta)."""
    average: bool = False
    """Log-ratios per token (TRL) instead of per response (the paper)."""

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ValueError(f"ipo: beta must be positive, got {self.beta}")

    @property
    def unit(self) -> Unit:
        return "pair"

    @property
    def kinds(self) -> frozenset[Kind]:
        return frozenset({"pair"})

    def count(self, feedback: Feedback) -> Tensor:
        return pair_weight_P(feedback).sum()

    def __call__(self, batch: Scored) -> Loss:
        log_ratio_N = batch.log_ratio_N()
        if self.average:
            log_ratio_N = log_ratio_N / batch.feedback.tokens_N
        chosen_P, rejected_P = batch.feedback.pair_P2.unbind(1)
        margin_P = log_ratio_N[chosen_P] - log_ratio_N[rejected_P]
        return pair_loss(batch, (margin_P - 1 / (2 * self.beta)) ** 2)
