"""Kahneman-Tversky optimisation (Ethayarajh et al. 2024, arXiv 2402.01306, Eq. 7-8).

    desirable:   w_d * (1 - sigma(beta * (D - z)))
    undesirable: w_u * (1 - sigma(beta * (z - D))),   D = log pi(y|x) - log pi_ref(y|x)

The reference point z stands for KL(pi || pi_ref). The authors estimate it in each step from
mismatched prompts and responses of the batch: that needs batch mates, an extra forward pass, and a
shuffle that pairs strangers. Here z is max(0, running mean of D), the two classes weighing the same,
from the steps before: it needs no batch mates, exists when a class is missing, and leaves the order
of the data free. `baseline="zero"` fixes z = 0 (TRL's `apo_zero_unpaired`). At step 0 all of them
agree: z = 0 and the loss is 1/2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from onestage.data.record import Kind
from onestage.objectives import Feedback, Loss, Objective, Scored, Unit


@dataclass(frozen=True)
class KTO(Objective):
    beta: float = 0.1
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0
    baseline: Literal["running", "zero"] = "running"
    """Where the reference point z comes from."""
    decay: float = 0.9
    """Of the running mean: the share kept in a step."""

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ValueError(f"kto: beta must be positive, got {self.beta}")
        if self.desirable_weight < 0 or self.undesirable_weight < 0:
            raise ValueError("kto: desirable_weight and undesirable_weight must not be negative")
        if not 0 <= self.decay < 1:
            raise ValueError(f"kto: decay must be in [0, 1), got {self.decay}")

    @property
    def unit(self) -> Unit:
        return "response"

    @property
    def kinds(self) -> frozenset[Kind]:
        return frozenset({"label", "pair", "demonstration"})

    def count(self, feedback: Feedback) -> Tensor:
        return feedback.weight_N.sum()

    def __call__(self, batch: Scored) -> Loss:
        feedback = batch.feedback
        desirable_N = ~feedback.rejected_N
        desirable_N &= ~(feedback.of("label") & (feedback.score_N == 0))
        log_ratio_N = batch.log_ratio_N()
        z = max(0.0, batch.state.get("kl", 0.0)) if self.baseline == "running" else 0.0
        reward_N = self.beta * (log_ratio_N - z)
        loss_N = torch.where(
            desirable_N,
            self.desirable_weight * torch.sigmoid(-reward_N),
            self.undesirable_weight * torch.sigmoid(reward_N),
        )
        observed = {
            name: (float(log_ratio_N.detach()[mask_N].sum()), float(mask_N.sum()))
            for name, mask_N in (("desirable", desirable_N), ("undesirable", ~desirable_N))
        }
        weight_N = feedback.weight_N
        return Loss(loss_N * weight_N, weight_N, feedback.record_N, observed=observed)

    def initial_state(self) -> dict[str, float]:
        return {"kl": 0.0} if self.baseline == "running" else {}

    def advance(
        self, state: Mapping[str, float], observed: Mapping[str, float]
    ) -> dict[str, float]:
        if self.baseline == "zero" or not observed:
            return dict(state)
        mean = sum(observed.values()) / len(observed)
        return {"kl": self.decay * state["kl"] + (1 - self.decay) * mean}
