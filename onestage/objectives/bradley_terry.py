"""A reward model from preferences (Bradley and Terry 1952; Ouyang et al. 2022, arXiv 2203.02155, Eq. 1).

    L = - p log sigma(d) - (1 - p) log sigma(-d) + centering (r_w + r_l)^2,    d = r_w - r_l - m

r is the model's reward of a response, w the better one and l the worse. Published forms:

- m = 0, p = 1: InstructGPT. A group of answers gives all its ordered pairs whose scores differ, and
  their mean counts as one unit, so that answers which stand in many pairs are not fitted more often.
- m = margin_scale (s_w - s_l) (`margin: score`): Llama 2 (Touvron et al. 2023, arXiv 2307.09288,
  Eq. 2), whose raters said by how much. Their margins go up to 1 or 3.
- p = sigma(gamma (s_w - s_l)) (`target: soft`): the soft labels of MMPO (Kim et al. 2024, arXiv
  2410.03145).
- centering 0.01: Eisenstein et al. 2023 (arXiv 2312.09244); the loss of pairs leaves the level of the
  rewards open, and this brings it to 0 (TRL's `center_rewards_coefficient`).

A pair without given scores has no margin and p = 1. Labels and scores, which compare nothing, are read
as probabilities of being good: cross-entropy of sigma(r), whose minimum is r = logit(s).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from onestage.objectives import Feedback, Measured, Objective, Scored, Units
from onestage.objectives._host import found, places


@dataclass(frozen=True, slots=True)
class _Compared:
    """Which of two responses is better (C comparisons)."""

    better_C: Tensor
    worse_C: Tensor
    weight_C: Tensor
    """Those of a record add up to its weight."""
    gap_C: Tensor
    """Score of the better minus that of the worse one; NaN where none are given."""


@dataclass(frozen=True)
class BradleyTerry(Objective):
    paper = "2203.02155"
    equation = "`-log sigma(r_w - r_l - m)`; labels and scores: cross-entropy of `sigma(r)`"
    at_start = "ln 2"
    second_opinion = "TRL's trainer"
    unit = "pair"
    kinds = frozenset({"pair", "group", "label", "score"})
    needs = frozenset({"reward"})

    margin: Literal["none", "score"] = "none"
    """How much better the better one must be: at all, or by the difference of the scores."""
    margin_scale: float = 1.0
    """Of `margin: score`: the margin of the largest difference there is (scores lie in [0, 1])."""
    target: Literal["hard", "soft"] = "hard"
    """How sure the preference is: entirely, or by the difference of the scores."""
    gamma: float = 1.0
    """Of `target: soft`: log-odds for the largest difference of scores there is."""
    centering: float = 0.0
    """Weight of the squared sum of the two rewards."""

    def __post_init__(self) -> None:
        for name in ("margin_scale", "gamma"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.centering < 0:
            raise ValueError(f"centering must not be negative, got {self.centering}")

    def units(self, feedback: Feedback) -> Units:
        """The comparisons, then the labels and scores."""
        pairs, single_M = compared(feedback), places(feedback, _alone_N)
        return Units(
            torch.cat([pairs.weight_C, feedback.weight_N[single_M]]),
            torch.cat([feedback.record_N[pairs.better_C], feedback.record_N[single_M]]),
        )

    def losses(self, batch: Scored) -> Tensor:
        feedback, reward_N, pairs = batch.feedback, batch.reward_N(), compared(batch.feedback)
        single_M = places(feedback, _alone_N)
        loss_M = F.binary_cross_entropy_with_logits(
            reward_N[single_M], feedback.score_N[single_M].to(reward_N.dtype), reduction="none"
        )
        better_C, worse_C = reward_N[pairs.better_C], reward_N[pairs.worse_C]
        return torch.cat([self.loss_C(better_C, worse_C, pairs.gap_C), loss_M])

    def metrics(self, batch: Scored) -> dict[str, Tensor | Measured]:
        """Rewards of all responses, and how comparisons come out (each counts as one)."""
        feedback, reward_N, pairs = batch.feedback, batch.reward_N(), compared(batch.feedback)
        better_C, worse_C = reward_N[pairs.better_C], reward_N[pairs.worse_C]
        seen = {
            "accuracy": (torch.sign(better_C - worse_C) + 1) / 2,
            "margin": better_C - worse_C,
            "chosen_reward": better_C,
            "rejected_reward": worse_C,
        }
        record_C = feedback.record_N[pairs.better_C]
        side_N = torch.where(feedback.score_N > 0.5, reward_N, -reward_N)
        right_N = (torch.sign(side_N) + 1) / 2
        return {
            "reward": reward_N,
            **{name: Measured(value_C, record_C) for name, value_C in seen.items()},
            "label_accuracy": torch.where(feedback.of("label"), right_N, torch.nan),
        }

    def loss_C(self, better_C: Tensor, worse_C: Tensor, gap_C: Tensor) -> Tensor:
        """Loss of each comparison, from two rewards and the difference of the scores."""
        distance_C = better_C - worse_C
        if self.margin == "score":
            distance_C = distance_C - self.margin_scale * gap_C.nan_to_num(0.0).clamp(min=0.0)
        loss_C = -F.logsigmoid(distance_C)
        if self.target == "soft":
            sure_C = torch.sigmoid(self.gamma * gap_C).nan_to_num(1.0)
            loss_C = sure_C * loss_C - (1 - sure_C) * F.logsigmoid(-distance_C)
        return loss_C + self.centering * (better_C + worse_C) ** 2


def _alone_N(feedback: Feedback) -> Tensor:
    """Mask (N) of the responses that are compared with no other."""
    return feedback.of("label", "score")


def compared(feedback: Feedback) -> _Compared:
    """The pairs, and of each group all pairs of responses whose scores differ."""
    return _Compared(*found(feedback, _compared))


def _compared(feedback: Feedback) -> list[Tensor]:
    """Better, worse, weight and gap (C) of them."""
    owner_N, score_N = feedback.record_N, feedback.score_N
    group_N = feedback.of("group")
    within_NN = (owner_N[:, None] == owner_N[None, :]) & group_N[:, None]
    better_G, worse_G = (within_NN & (score_N[:, None] > score_N[None, :])).nonzero().unbind(1)
    owner_G = owner_N[better_G]
    each_R = torch.bincount(owner_G, minlength=1)
    chosen_P, rejected_P = feedback.pair_P2.unbind(1)
    better_C, worse_C = torch.cat([chosen_P, better_G]), torch.cat([rejected_P, worse_G])
    weight_C = feedback.weight_N[better_C]
    part_C = torch.cat([torch.ones_like(chosen_P), each_R[owner_G]])
    return [better_C, worse_C, weight_C / part_C, score_N[better_C] - score_N[worse_C]]
