"""Distillation: at each token, towards a teacher's distribution over the whole vocabulary.

Hinton et al. 2015 (arXiv 1503.02531) on given answers; Agarwal et al. 2023, GKD (arXiv 2306.13649), on
the policy's own, where it will be when it is used. With q the teacher's distribution and p the
policy's,

    forward   KL(q || p)      covers everything the teacher would say
    reverse   KL(p || q)      settles on what the teacher would say most
    js        half of each, towards their mean

The teacher is the run's `reference`: another model with the policy's vocabulary (one with another is
refused before anything is loaded), which is run in each step. It is asked at the tokens of good answers
of the data, and of `check` records at those that the policy sampled; rewards are not looked at. With
`reference: start` this holds the policy to where it began, on whatever text it is given.

The mean is over tokens. Default: forward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from onestage.objectives import Feedback, Measured, Need, Objective, Scored, Units
from onestage.objectives._likelihood import GOOD, good_N

Direction = Literal["forward", "reverse", "js"]
NEEDED: dict[Direction, Need] = {"forward": "forward_kl", "reverse": "reverse_kl", "js": "js"}


@dataclass(frozen=True)
class Distill(Objective):
    paper = "2306.13649"
    equation = (
        "`KL(q to p)`; `divergence: reverse`: `KL(p to q)`; `js`; q the teacher = `reference`"
    )
    at_start = "0 from `start`"
    second_opinion = "TRL's own code"
    unit = "token"
    kinds = GOOD | {"check"}

    divergence: Direction = "forward"
    """Which of the two distributions the mean is over."""

    @property
    def needs(self) -> frozenset[Need]:
        mine: frozenset[Need] = frozenset({"logp", "reference"})
        return mine | {NEEDED[self.divergence]}

    def units(self, feedback: Feedback) -> Units:
        own_N = feedback.of("check") & feedback.are("response")
        return feedback.units("token", feedback.weight_N * (good_N(feedback) | own_N))

    def losses(self, batch: Scored) -> Tensor:
        return batch.extra[NEEDED[self.divergence]]

    def metrics(self, batch: Scored) -> dict[str, Tensor | Measured]:
        """How much less likely than the teacher the policy finds the token that stands there."""
        return {"behind_teacher": -batch.log_ratio_N() / batch.feedback.tokens_N}
