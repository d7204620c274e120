"""Self-play preference optimisation: every answer's log-ratio meets its win rate.

Wu et al. 2024, arXiv 2405.00675, Eq. 4.7. With D = log pi(y|x) - log pi_ref(y|x) and P the probability
that y is preferred to what the reference writes,

    L = (D - (P - 1/2) / beta)^2

one square an answer; the paper's eta is 1 / beta. A pair is read as P = 1 and 0, the hard form that
TRL has (`sppo_hard`, whose loss is the sum of both sides). Of `score` and `group` records the score is
read as P: give win rates, such as an answer's mean over the others of its group.

The paper plays against itself: the reference is the model of the round before, so a recipe has one
stage a round. Default: beta 0.001, the authors' eta of 1000.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from onestage.objectives import Objective, Scored


@dataclass(frozen=True)
class SPPO(Objective):
    paper = "2405.00675"
    equation = (
        "`(D - (P - 1/2) / beta)^2`, P the win rate: that of a pair's sides 1 and 0, of a "
        "score and in a group the score"
    )
    at_start = "(P - 1/2)^2 / beta^2"
    second_opinion = "TRL's own code (pairs)"
    unit = "response"
    kinds = frozenset({"pair", "score", "group"})

    beta: float = 0.001
    """1 / eta: a sure winner's log-ratio aims at 1 / (2 beta)."""

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ValueError(f"sppo: beta must be positive, got {self.beta}")

    def losses(self, batch: Scored) -> Tensor:
        feedback, log_ratio_N = batch.feedback, batch.log_ratio_N()
        hard_N = (~feedback.rejected_N).to(log_ratio_N.dtype)
        wins_N = torch.where(feedback.of("pair"), hard_N, feedback.score_N.to(log_ratio_N.dtype))
        return (log_ratio_N - (wins_N - 0.5) / self.beta) ** 2
