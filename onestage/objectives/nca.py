"""Noise contrastive alignment (Chen et al. 2024, arXiv 2402.05369), its form for pairs.

    L = - log sigma(r_w) - 1/2 log sigma(-r_w) - 1/2 log sigma(-r_l),   r = beta D

with D = log pi(y|x) - log pi_ref(y|x). Where DPO compares two rewards, NCA asks of each response whether
it came from the data or from the reference, which is the noise: it fits the level of rewards, not their
difference alone, so the chosen side does not become less likely. Its minimum has r_w = log 2.

The paper's general form weighs the answers of a group by a softmax of their scores; a pair is its limit
of a low temperature, which is what the authors train on pairs (TRL's `nca_pair`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from onestage.objectives import Objective, Scored


@dataclass(frozen=True)
class NCA(Objective):
    paper = "2402.05369"
    equation = "`-log sigma(r_w) - (log sigma(-r_w) + log sigma(-r_l)) / 2`, r = beta D"
    at_start = "2 ln 2"
    second_opinion = "TRL's own code"
    unit = "pair"
    kinds = frozenset({"pair"})

    beta: float = 0.01
    """The authors' default; it is ten times smaller than DPO's."""

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ValueError(f"nca: beta must be positive, got {self.beta}")

    def losses(self, batch: Scored) -> Tensor:
        reward_N = self.beta * batch.log_ratio_N()
        chosen_P, rejected_P = (reward_N[side_P] for side_P in batch.feedback.pair_P2.unbind(1))
        noise_P = F.logsigmoid(-chosen_P) + F.logsigmoid(-rejected_P)
        return -F.logsigmoid(chosen_P) - noise_P / 2
