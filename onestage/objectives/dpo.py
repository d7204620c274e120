"""Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290, Eq. 7).

    L = - log sigma(beta * (D_w - D_l)),   D = log pi(y|x) - log pi_ref(y|x)

With label smoothing e (cDPO, Mitchell 2023, Eq. 3): (1 - e) times this, plus e times the loss of the
swapped pair. It is also UNA's pairwise form (Wang et al. 2024, arXiv 2408.15339, Eq. 10 with the
log-sigmoid that their experiments use): an offset f(x) cancels in the difference.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from onestage.objectives import Objective, Scored


@dataclass(frozen=True)
class DPO(Objective):
    paper = "2305.18290"
    equation = "`-log sigma(beta (D_w - D_l))`, smoothed by `label_smoothing`"
    at_start = "ln 2"
    second_opinion = "TRL's own code"
    unit = "pair"
    kinds = frozenset({"pair"})

    beta: float = 0.1
    label_smoothing: float = 0.0
    """Probability that a preference is recorded the wrong way round, in [0, 0.5)."""

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ValueError(f"dpo: beta must be positive, got {self.beta}")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(
                f"dpo: label_smoothing must be in [0, 0.5), got {self.label_smoothing}"
            )

    def losses(self, batch: Scored) -> Tensor:
        reward_P, e = self.beta * batch.margin_P(), self.label_smoothing
        return -(1 - e) * F.logsigmoid(reward_P) - e * F.logsigmoid(-reward_P)
