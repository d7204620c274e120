"""ORPO: likelihood and an odds ratio in one loss, without a reference.

Hong et al. 2024, arXiv 2403.07691:

    L = - l_w - beta log sigma(log odds_w - log odds_l)
    l = log pi(y|x) / |y|,   log odds = l - log(1 - exp(l))

l, the mean log-probability a token, stands for that of the response, as in the paper. The first term is
SFT's on the chosen response alone; TRL's trainer takes the prompt's tokens in as well, as the authors'
code does, which trains on what the user said.

Default: beta 0.1, the paper's lambda (TRL calls it beta).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from onestage.objectives import Objective, Scored

SURE = -1e-6
"""The highest mean log-probability whose odds are told apart in float32."""


@dataclass(frozen=True)
class ORPO(Objective):
    paper = "2403.07691"
    equation = (
        "`-l_w - beta log sigma(log odds_w - log odds_l)`, l the mean log-probability a "
        "token; no reference"
    )
    at_start = "by the model"
    second_opinion = "TRL's own code"
    unit = "pair"
    kinds = frozenset({"pair"})
    needs = frozenset({"logp"})

    beta: float = 0.1
    """Weight of the odds ratio; the paper's lambda."""

    def __post_init__(self) -> None:
        if self.beta < 0:
            raise ValueError(f"orpo: beta must be at least 0, got {self.beta}")

    def losses(self, batch: Scored) -> Tensor:
        mean_N = batch.per_response(batch.logp_K) / batch.feedback.tokens_N
        ratio_P = batch.apart_P(_log_odds_N(mean_N))
        return -mean_N[batch.feedback.pair_P2[:, 0]] - self.beta * F.logsigmoid(ratio_P)


def _log_odds_N(logp_N: Tensor) -> Tensor:
    logp_N = logp_N.clamp(max=SURE)
    return logp_N - torch.log(-torch.expm1(logp_N))
