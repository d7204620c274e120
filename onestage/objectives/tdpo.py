"""Token-level DPO: the margin of a pair, less how far the policy has moved along each side.

Zeng et al. 2024, arXiv 2404.11999. With D = log pi(y|x) - log pi_ref(y|x) and K = sum_t KL(pi_ref ||
pi) over the whole vocabulary at the tokens of a response (the sequential forward KL),

    tdpo1:  L = - log sigma(beta (D_w - D_l - (K_l - K_w)))                    Eq. 14-15
    tdpo2:  L = - log sigma(beta (D_w - D_l - alpha (K_l - stop(K_w))))        Eq. 17-18

so that the rejected side, on which DPO lets the policy drift far, is held to the reference. In the
second form no gradient goes through K of the chosen side and alpha says how much the difference counts.

K needs both models' distributions at every token: the reference is run in each step. Defaults: `tdpo2`,
alpha 0.5, beta 0.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from onestage.objectives import Measured, Objective, Scored


@dataclass(frozen=True)
class TDPO(Objective):
    paper = "2404.11999"
    equation = (
        "`-log sigma(beta (D_w - D_l - alpha (K_l - K_w)))`, K the KL from the reference "
        "summed over the tokens; `form: tdpo1`: alpha 1"
    )
    at_start = "ln 2"
    second_opinion = "the authors' code, as it was read"
    unit = "pair"
    kinds = frozenset({"pair"})
    needs = frozenset({"logp", "reference", "forward_kl"})

    beta: float = 0.1
    form: Literal["tdpo1", "tdpo2"] = "tdpo2"
    alpha: float = 0.5
    """Of `tdpo2`: how much the difference of the two divergences counts."""

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ValueError(f"tdpo: beta must be positive, got {self.beta}")
        if self.alpha < 0:
            raise ValueError(f"tdpo: alpha must be at least 0, got {self.alpha}")

    def losses(self, batch: Scored) -> Tensor:
        kl_N = batch.per_response(batch.extra["forward_kl"])
        chosen_P, rejected_P = (kl_N[side_P] for side_P in batch.feedback.pair_P2.unbind(1))
        if self.form == "tdpo1":
            drift_P = rejected_P - chosen_P
        else:
            drift_P = self.alpha * (rejected_P - chosen_P.detach())
        return -F.logsigmoid(self.beta * (batch.margin_P() - drift_P))

    def metrics(self, batch: Scored) -> dict[str, Tensor | Measured]:
        return {"forward_kl": batch.per_response(batch.extra["forward_kl"])}
