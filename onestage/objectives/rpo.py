"""DPO with the likelihood of the chosen side: iterative reasoning preference optimisation.

Pang et al. 2024, arXiv 2404.19733:

    L = - log sigma(beta (D_w - D_l)) - sft_coef log pi(y_w|x) / |y_w|

DPO alone may make both sides less likely as long as the gap widens; the second term keeps the chosen
one.
It is the mean over a response's tokens, then over pairs. TRL's `loss_type: ["sigmoid", "sft"]` takes
the mean over the tokens of the whole batch, so that long answers count more. The paper's iterations,
new pairs sampled from the last model, are stages of a recipe, or an online stream with `feedback: pair`.

Defaults: sft_coef 1 (the paper's alpha), beta 0.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from onestage.objectives import Objective, Scored


@dataclass(frozen=True)
class RPO(Objective):
    paper = "2404.19733"
    equation = "`-log sigma(beta (D_w - D_l)) - sft_coef log pi(y_w) / length`"
    at_start = "by the model"
    second_opinion = "TRL's own code"
    unit = "pair"
    kinds = frozenset({"pair"})

    beta: float = 0.1
    sft_coef: float = 1.0
    """Weight of the chosen side's negative log-likelihood a token."""

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ValueError(f"rpo: beta must be positive, got {self.beta}")
        if self.sft_coef < 0:
            raise ValueError(f"rpo: sft_coef must be at least 0, got {self.sft_coef}")

    def losses(self, batch: Scored) -> Tensor:
        mean_N = batch.per_response(batch.logp_K) / batch.feedback.tokens_N
        chosen_P = batch.feedback.pair_P2[:, 0]
        return -F.logsigmoid(self.beta * batch.margin_P()) - self.sft_coef * mean_N[chosen_P]
