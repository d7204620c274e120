"""Binary classifier optimisation: is this answer one of the good ones?

Jung et al. 2024, arXiv 2404.04656. With D = log pi(y|x) - log pi_ref(y|x),

    good:  L = - log sigma(beta (D - z))
    bad:   L = - log sigma(beta (z - D))

a classifier whose logit is the implicit reward; its loss bounds DPO's from above, and labels need no
pairs. The shift z is half the sum of the mean D of good and of bad answers, which makes the bound
tight. Here both means are running means of the steps before, so that a loss does not depend on what
else is in the batch; a class that never came up counts as 0. `shift: zero` is TRL's `bco_pair`.

The weights by which the paper corrects for prompts that only one class has (a classifier of prompts)
are not here: give records a `weight`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from onestage.objectives import Feedback, Objective, Scored

CLASSES = ("desirable", "undesirable")


@dataclass(frozen=True)
class BCO(Objective):
    paper = "2404.04656"
    equation = (
        "`-log sigma(+-beta (D - z))`, z half the sum of the mean D of good and of bad "
        "answers; a pair is two labels, a demonstration a good one"
    )
    at_start = "ln 2"
    second_opinion = "TRL's own code"
    unit = "response"
    kinds = frozenset({"label", "pair", "demonstration"})

    beta: float = 0.1
    shift: Literal["running", "zero"] = "running"
    """Where z comes from."""
    decay: float = 0.9
    """Of the running means: the share kept in a step."""

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ValueError(f"bco: beta must be positive, got {self.beta}")
        if not 0 <= self.decay < 1:
            raise ValueError(f"bco: decay must be in [0, 1), got {self.decay}")

    def losses(self, batch: Scored) -> Tensor:
        z = sum(batch.state.values()) / len(CLASSES)
        reward_N = self.beta * (batch.log_ratio_N() - z)
        return -F.logsigmoid(torch.where(_good_N(batch.feedback), reward_N, -reward_N))

    def observe(self, batch: Scored) -> dict[str, Tensor]:
        if self.shift == "zero":
            return {}
        good_N, log_ratio_N = _good_N(batch.feedback), batch.log_ratio_N()
        return {
            "desirable": torch.where(good_N, log_ratio_N, torch.nan),
            "undesirable": torch.where(good_N, torch.nan, log_ratio_N),
        }

    def start(self) -> dict[str, float]:
        return dict.fromkeys(CLASSES, 0.0) if self.shift == "running" else {}

    def advance(
        self, state: Mapping[str, float], observed: Mapping[str, float]
    ) -> dict[str, float]:
        kept = dict(state)
        for name in observed:
            kept[name] = self.decay * state[name] + (1 - self.decay) * observed[name]
        return kept


def _good_N(feedback: Feedback) -> Tensor:
    """Mask (N): all but rejected sides of pairs and thumbs down."""
    return ~feedback.rejected_N & ~(feedback.of("label") & (feedback.score_N == 0))
