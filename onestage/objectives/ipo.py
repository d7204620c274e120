"""Identity preference optimisation (Azar et al. 2023, arXiv 2310.12036, Eq. 17).

    L = (D_w - D_l - 1 / (2 beta))^2,   D = log pi(y|x) - log pi_ref(y|x)

The paper writes D as the log-ratio of whole responses, which is the default. TRL divides each D by
its response's length; `average=True` does so too.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from onestage.objectives import Objective, Scored


@dataclass(frozen=True)
class IPO(Objective):
    paper = "2310.12036"
    equation = (
        "`(D_w - D_l - 1 / (2 beta))^2`; `average: true` divides each D by its length, as TRL does"
    )
    at_start = "1 / (4 beta^2)"
    second_opinion = "TRL's own code (`average`)"
    unit = "pair"
    kinds = frozenset({"pair"})

    beta: float = 0.1
    """The paper's tau: the log-ratio margin aims at 1 / (2 beta)."""
    average: bool = False
    """Log-ratios per token (TRL) instead of per response (the paper)."""

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ValueError(f"ipo: beta must be positive, got {self.beta}")

    def losses(self, batch: Scored) -> Tensor:
        log_ratio_N = batch.log_ratio_N()
        if self.average:
            log_ratio_N = log_ratio_N / batch.feedback.tokens_N
        return (batch.apart_P(log_ratio_N) - 1 / (2 * self.beta)) ** 2
