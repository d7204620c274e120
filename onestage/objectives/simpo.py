"""SimPO, preference optimisation without a reference (Meng et al. 2024, arXiv 2405.14734, Eq. 6).

    L = - log sigma(beta * (l_w - l_l - m)),   l = log pi(y|x) / |y|

The reward of a response is its mean log-probability a token, which is what sampling goes by, and the
chosen one is to lead by a target margin gamma = beta * m. TRL's CPO trainer calls gamma `simpo_gamma`;
the authors' code has the ratio m, which stays what it is when beta changes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from onestage.objectives import Objective, Scored


@dataclass(frozen=True)
class SimPO(Objective):
    paper = "2405.14734"
    equation = (
        "`-log sigma(beta (l_w - l_l - m))`, l the mean log-probability a token, m = "
        "`gamma_beta_ratio`; no reference"
    )
    at_start = "by the model"
    second_opinion = "TRL's own code"
    unit = "pair"
    kinds = frozenset({"pair"})
    needs = frozenset({"logp"})

    beta: float = 2.0
    """Scale of the mean log-probabilities; the authors' default."""
    gamma_beta_ratio: float = 0.25
    """m: the target margin in nats a token; the authors' default."""

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ValueError(f"simpo: beta must be positive, got {self.beta}")
        if self.gamma_beta_ratio < 0:
            raise ValueError(
                f"simpo: gamma_beta_ratio must be at least 0, got {self.gamma_beta_ratio}"
            )

    def losses(self, batch: Scored) -> Tensor:
        mean_N = batch.per_response(batch.logp_K) / batch.feedback.tokens_N
        return -F.logsigmoid(self.beta * (batch.apart_P(mean_N) - self.gamma_beta_ratio))
