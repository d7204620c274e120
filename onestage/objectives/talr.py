"""Token-adaptive loss reweighting: what the policy finds hopeless hardly counts.

Lin et al. 2025, arXiv 2509.20758. With p = pi(y_t | x, y_<t), through which no gradient goes in the
weight,

    L = - max(p^(1 / tau), floor) log pi(y_t | x, y_<t)

Tokens that are far from what the policy would say move it most and make it forget most. DFT (`sft` with
`reweight: dft`) is tau 1 without a floor; here tau is what a token costs on average, so that the weights
mean the same early and late. The paper takes the median of the mean losses of the responses of each
batch; here tau is a running mean of them over the steps before, so that a loss does not depend on what
else is in the batch (in the first step, the response's own).

The same paper finds that a small learning rate does most of the work. Defaults: floor 0.01; decay 0.9
is ours. The authors have released no code; the weights are as in another group's (DiSC).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from onestage.objectives import Scored
from onestage.objectives._likelihood import Weighed, good_N

LEAST = 1e-3
"""Of tau: a text that is known by heart would divide by 0."""


@dataclass(frozen=True)
class TALR(Weighed):
    paper = "2509.20758"
    equation = "`-max(p^(1 / tau), floor) log pi`, tau what a token costs on average"
    second_opinion = (
        "the paper's equation, and code of DiSC run beside ours (the authors released none)"
    )
    needs = frozenset({"logp"})

    tau: float | None = None
    """Nats; null: a running mean of what a token costs."""
    floor: float = 0.01
    """The least weight of a token."""
    decay: float = 0.9
    """Of the running mean: the share kept in a step."""

    def __post_init__(self) -> None:
        if self.tau is not None and self.tau <= 0:
            raise ValueError(f"talr: tau must be positive or null, got {self.tau}")
        if not (0 <= self.floor <= 1 and 0 <= self.decay < 1):
            raise ValueError(
                f"talr: floor must be in [0, 1] and decay in [0, 1), got {self.floor}, {self.decay}"
            )

    def _weight_K(self, batch: Scored) -> Tensor:
        return (batch.logp_K / self._tau_K(batch)).exp().clamp(self.floor, 1.0)

    def _tau_K(self, batch: Scored) -> Tensor:
        known = self.tau or batch.state.get("tau", 0.0)
        own_K = _cost_N(batch)[batch.response_K]
        return (torch.full_like(own_K, known) if known else own_K).clamp(min=LEAST)

    def observe(self, batch: Scored) -> dict[str, Tensor]:
        if self.tau is not None:
            return {}
        return {"cost": torch.where(good_N(batch.feedback), _cost_N(batch), torch.nan)}

    def start(self) -> dict[str, float]:
        return {"tau": 0.0} if self.tau is None else {}

    def advance(
        self, state: Mapping[str, float], observed: Mapping[str, float]
    ) -> dict[str, float]:
        if "cost" not in observed:
            return dict(state)
        before = state["tau"] or observed["cost"]
        return {"tau": self.decay * before + (1 - self.decay) * observed["cost"]}


def _cost_N(batch: Scored) -> Tensor:
    """Mean negative log-likelihood of a token of each response."""
    return -batch.per_response(batch.logp_K) / batch.feedback.tokens_N
