"""Anchored preference optimisation: which way both sides of a pair are to move.

D'Oosterlinck et al. 2024, arXiv 2408.06266, Eq. 7 and 8. With r = beta D and D = log pi(y|x) -
log pi_ref(y|x),

    zero:  L = 1 - sigma(r_w) + sigma(r_l)          the chosen side up, the rejected one down
    down:  L = sigma(r_w) + 1 - sigma(r_w - r_l)    both down, the rejected one more

`zero` is for answers that are better than what the model writes, `down` for a model that is better than
both answers of its data. The sigmoids saturate: a response that has moved far is let go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from onestage.objectives import Objective, Scored


@dataclass(frozen=True)
class APO(Objective):
    paper = "2408.06266"
    equation = (
        "`anchor: zero`: `1 - sigma(r_w) + sigma(r_l)`; `down`: `sigma(r_w) + 1 - sigma(r_w -"
        " r_l)`, r = beta D"
    )
    at_start = "1"
    second_opinion = "TRL's own code"
    unit = "pair"
    kinds = frozenset({"pair"})

    beta: float = 0.1
    anchor: Literal["zero", "down"] = "zero"
    """Whether chosen answers become more likely, or less likely than they were."""

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ValueError(f"apo: beta must be positive, got {self.beta}")

    def losses(self, batch: Scored) -> Tensor:
        reward_N = self.beta * batch.log_ratio_N()
        chosen_P, rejected_P = (reward_N[side_P] for side_P in batch.feedback.pair_P2.unbind(1))
        if self.anchor == "zero":
            return torch.sigmoid(-chosen_P) + torch.sigmoid(rejected_P)
        return torch.sigmoid(chosen_P) + torch.sigmoid(rejected_P - chosen_P)
