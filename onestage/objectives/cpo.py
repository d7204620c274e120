"""Contrastive preference optimisation (Xu et al. 2024, arXiv 2401.08417).

    L = - log sigma(beta (log pi(y_w|x) - log pi(y_l|x))) - sft_coef log pi(y_w|x) / |y_w|

DPO with a uniform reference, which then cancels, kept in place by the likelihood of the chosen side. The
paper writes that term for the whole response; it is a mean over tokens here, as in the authors' trainer
in TRL (of the whole batch there, of each response here).

Defaults: beta 0.1, sft_coef 1 (TRL's `cpo_alpha`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from onestage.objectives import Objective, Scored


@dataclass(frozen=True)
class CPO(Objective):
    paper = "2401.08417"
    equation = (
        "`-log sigma(beta (log pi_w - log pi_l)) - sft_coef log pi(y_w) / length`; no reference"
    )
    at_start = "by the model"
    second_opinion = "TRL's own code"
    unit = "pair"
    kinds = frozenset({"pair"})
    needs = frozenset({"logp"})

    beta: float = 0.1
    sft_coef: float = 1.0
    """Weight of the chosen side's negative log-likelihood a token."""

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ValueError(f"cpo: beta must be positive, got {self.beta}")
        if self.sft_coef < 0:
            raise ValueError(f"cpo: sft_coef must be at least 0, got {self.sft_coef}")

    def losses(self, batch: Scored) -> Tensor:
        total_N, feedback = batch.per_response(batch.logp_K), batch.feedback
        mean_P = (total_N / feedback.tokens_N)[feedback.pair_P2[:, 0]]
        return -F.logsigmoid(self.beta * batch.apart_P(total_N)) - self.sft_coef * mean_P
