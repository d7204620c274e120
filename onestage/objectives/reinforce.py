"""REINFORCE with a baseline (Williams 1992), and REINFORCE++ (Hu 2025, arXiv 2501.03262).

Of token t of a response with reward R,

    A_t = R - beta sum_{s >= t} (logp_s - ref_logp_s) - b

In the reward, the KL penalty counts from the token on: what was paid for earlier tokens does not depend
on it. The mean is over responses, of the sum over their tokens: the gradient of the expected reward.

b, the baseline, is the mean reward of everything sampled together (`batch`), of the group (`group`), or
of the steps before (`running`: an exponential mean, 0 as long as nothing is known; it does not depend
on the response it is taken off). `whiten: batch` brings the advantages of all tokens sampled together
to mean 0 and deviation 1. REINFORCE++ is `whiten: batch, beta: 0.01, loss_type: dapo`, and its variant
for groups has `baseline: group` as well. Those are verl's (`trainer/ppo/core_algos.py`), with two
differences: with groups verl takes a penalty in the reward off the whole answer, here it counts from
the token on; and verl clips the ratio at 3 where A is negative.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from onestage.objectives import Scored, wide
from onestage.objectives._surrogate import (
    PolicyGradient,
    group_means,
    penalised,
    sums_to_go,
    whitened,
)


@dataclass(frozen=True)
class Reinforce(PolicyGradient):
    paper = "2501.03262"
    equation = "S(A), A = R_i - b - beta sum_{s >= t} (logp - ref), b the mean reward (`baseline`)"
    second_opinion = "verl's code, run beside ours (REINFORCE++, both forms)"
    kl_in: Literal["loss", "reward"] = "reward"
    loss_type: Literal["grpo", "dapo", "dr_grpo", "sum"] = "sum"
    baseline: Literal["none", "batch", "group", "running"] = "batch"
    decay: float = 0.9
    """Of the running mean: the share kept in a step."""
    whiten: Literal["none", "batch"] = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {self.decay}")

    def advantage_K(self, batch: Scored) -> Tensor:
        centred_N = batch.feedback.score_N - self._baseline_N(batch)
        advantage_K = centred_N[batch.response_K]
        if penalised(self):
            paid_K = self.beta * (batch.logp_K - batch.ref_logp_K)
            advantage_K = advantage_K - sums_to_go(paid_K, batch)
        if self.whiten == "batch":
            return whitened(advantage_K, self.trained_N(batch.feedback)[batch.response_K])
        return advantage_K

    def _baseline_N(self, batch: Scored) -> Tensor:
        feedback = batch.feedback
        own_N, reward_N = self.units_N(feedback), feedback.score_N
        if self.baseline == "group":
            return group_means(reward_N, own_N, feedback)
        value = 0.0
        if self.baseline == "batch":
            own_M = reward_N[own_N].to(wide(reward_N.device))
            value = float(own_M.mean()) if len(own_M) else 0.0
        elif self.baseline == "running" and batch.state["weight"]:
            value = batch.state["reward"] / batch.state["weight"]
        return torch.full_like(reward_N, value)

    def observe(self, batch: Scored) -> dict[str, Tensor]:
        if self.baseline != "running":
            return {}
        own_N = self.units_N(batch.feedback)
        return {"reward": torch.where(own_N, batch.feedback.score_N, torch.nan)}

    def start(self) -> dict[str, float]:
        return {"reward": 0.0, "weight": 0.0} if self.baseline == "running" else {}

    def advance(
        self, state: Mapping[str, float], observed: Mapping[str, float]
    ) -> dict[str, float]:
        if "reward" not in observed:
            return dict(state)
        new = {"reward": observed["reward"], "weight": 1.0}
        return {key: self.decay * state[key] + (1 - self.decay) * new[key] for key in new}
