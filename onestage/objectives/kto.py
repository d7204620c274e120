"""Kahneman-Tversky optimisation (Ethayarajh et al. 2024, arXiv 2402.01306, Eq. 7-8).

    desirable:   w_d * (1 - sigma(beta * (D - z)))
    undesirable: w_u * (1 - sigma(beta * (z - D))),   D = log pi(y|x) - log pi_ref(y|x)

The reference point z stands for KL(pi || pi_ref). `baseline`:

- "running": max(0, running mean of D), the two classes weighing the same, from the steps before. It
  needs no batch mates and no further pass, and exists when a class is missing.
- "mismatched", the published one: max(0, mean of D of answers behind prompts that they do not belong
  to). The authors shift the answers of a batch by one, so that what a record teaches depends on its
  batch mates. Here a record's stranger is the answer of the next record of its stream, whatever the
  batch is, so that the reference's part is computed once, and z is the mean over the batch of the step
  before. A record goes through the model with as many answers more, behind prompts that are shared.
- "zero": z = 0 (TRL's `apo_zero_unpaired`).

At step 0 all of them agree: z = 0 and the loss is 1/2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from onestage.objectives import Feedback, Need, Objective, Scored


@dataclass(frozen=True)
class KTO(Objective):
    paper = "2402.01306"
    equation = (
        "`w (1 - sigma(+-beta (D - z)))`, z the reference point; a pair is two labels, a "
        "demonstration a good one"
    )
    at_start = "1/2"
    second_opinion = "TRL's own code"
    unit = "response"
    kinds = frozenset({"label", "pair", "demonstration"})

    beta: float = 0.1
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0
    baseline: Literal["running", "mismatched", "zero"] = "running"
    """Where the reference point z comes from."""
    decay: float = 0.9
    """Of the running mean: the share kept in a step. (The mismatched one is new in every step.)"""

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ValueError(f"kto: beta must be positive, got {self.beta}")
        if self.desirable_weight < 0 or self.undesirable_weight < 0:
            raise ValueError("kto: desirable_weight and undesirable_weight must not be negative")
        if not 0 <= self.decay < 1:
            raise ValueError(f"kto: decay must be in [0, 1), got {self.decay}")

    @property
    def needs(self) -> frozenset[Need]:
        more: frozenset[Need] = frozenset({"stranger"} if self.baseline == "mismatched" else ())
        return super().needs | more

    def losses(self, batch: Scored) -> Tensor:
        z = 0.0 if self.baseline == "zero" else max(0.0, batch.state["kl"])
        reward_N = self.beta * (batch.log_ratio_N() - z)
        return torch.where(
            _desirable_N(batch.feedback),
            self.desirable_weight * torch.sigmoid(-reward_N),
            self.undesirable_weight * torch.sigmoid(reward_N),
        )

    def observe(self, batch: Scored) -> dict[str, Tensor]:
        desirable_N, log_ratio_N = _desirable_N(batch.feedback), batch.log_ratio_N()
        if self.baseline == "mismatched":
            stranger_N = batch.feedback.are("stranger")
            return {"stranger": torch.where(stranger_N, log_ratio_N, torch.nan)}
        return {
            "desirable": torch.where(desirable_N, log_ratio_N, torch.nan),
            "undesirable": torch.where(desirable_N, torch.nan, log_ratio_N),
        }

    def start(self) -> dict[str, float]:
        return {} if self.baseline == "zero" else {"kl": 0.0}

    def advance(
        self, state: Mapping[str, float], observed: Mapping[str, float]
    ) -> dict[str, float]:
        if self.baseline == "zero" or not observed:
            return dict(state)
        if self.baseline == "mismatched":
            return {"kl": observed["stranger"]}
        # The two classes weigh the same, however many responses of each the step had.
        mean = sum(observed.values()) / len(observed)
        return {"kl": self.decay * state["kl"] + (1 - self.decay) * mean}


def _desirable_N(feedback: Feedback) -> Tensor:
    """Mask (N): all but rejected sides of pairs and thumbs down."""
    return ~feedback.rejected_N & ~(feedback.of("label") & (feedback.score_N == 0))
