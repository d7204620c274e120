"""PPO: a value head is the baseline of every token.

Schulman et al. 2017 (arXiv 1707.06347) as used on language models (Ouyang et al. 2022, arXiv
2203.02155). With V_t what the value head expects before token t of a response of T tokens, and policy
and head as they were when the response was sampled,

    r_t     = - beta (logp_t - ref_logp_t), and at t = T the reward on top
    delta_t = r_t + gamma V_{t+1} - V_t,    V_{T+1} = 0
    A_t     = delta_t + gamma lambda A_{t+1}                   (GAE, arXiv 1506.02438, Eq. 16)

A is whitened over all tokens that were sampled together. The loss of a token is the clipped surrogate
of `_surrogate` plus vf_coef / 2 times the larger of (V - G)^2 and (V_near - G)^2, where G = A +
V_old is the return before whitening and V_near is V, kept within value_clip of V_old.

The head stands on the policy's own trunk. So the defaults are those of ReFT (Luong et al. 2024, arXiv
2401.08967), which shares its trunk as well: beta 0.05 (its chains of thought as programs: 0.01), lambda
0.95, vf_coef 5, both clips 0.2, token mean; it goes through a rollout twice (`num_iterations: 2`).
TRL's PPO had a model of its own for values and vf_coef 0.1 (TRL 1.16 has none any more). verl's
(`trainer/ppo/core_algos.py`) has the same losses on two models, and clips the ratio at 3 where A is
negative.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from onestage.objectives import Measured, Need, Scored
from onestage.objectives._surrogate import (
    PolicyGradient,
    means_of_sampled,
    penalised,
    sums_to_go,
    surrogate,
    whitened,
)


@dataclass(frozen=True)
class PPO(PolicyGradient):
    paper = "1707.06347"
    equation = (
        "S(A) + vf_coef / 2 max((V - G)^2, (V_near - G)^2), A by GAE over a value head, whitened"
    )
    second_opinion = "verl's code, run beside ours"
    beta: float = 0.05
    kl_in: Literal["loss", "reward"] = "reward"
    gamma: float = 1.0
    lam: float = 0.95
    """GAE's lambda: 1 trusts returns alone, 0 the value head."""
    vf_coef: float = 5.0
    """Coefficient of the value loss."""
    value_clip: float = 0.2
    whiten: Literal["none", "batch"] = "batch"
    """Advantages of all tokens sampled together are brought to mean 0 and deviation 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (("gamma", self.gamma), ("lam", self.lam)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {value}")
        if self.vf_coef <= 0 or self.value_clip <= 0:
            raise ValueError(
                f"vf_coef and value_clip must be positive, got {self.vf_coef}, {self.value_clip}"
            )

    @property
    def needs(self) -> frozenset[Need]:
        return super().needs | {"value"}

    def asks(self, again: bool) -> frozenset[Need]:
        return super().asks(again) | {"value"}

    def remember(self, batch: Scored, again: bool) -> dict[str, Tensor]:
        value_K = batch.extra["value"]
        return {
            **super().remember(batch, again),
            "value": value_K,
            "return": (self.gae_K(batch) + value_K).nan_to_num(0.0),
        }

    def advantage_K(self, batch: Scored) -> Tensor:
        advantage_K = self.gae_K(batch)
        if self.whiten == "none":
            return advantage_K
        return whitened(advantage_K, self.trained_N(batch.feedback)[batch.response_K])

    def gae_K(self, batch: Scored) -> Tensor:
        """Generalised advantage estimates (K); NaN where a response has no reward."""
        value_K, feedback = batch.extra["value"], batch.feedback
        last_K = batch.place_K() == feedback.tokens_N[batch.response_K] - 1
        # Responses lie one behind another: at a last token the next response's value would roll in.
        next_K = torch.where(last_K, 0.0, value_K.roll(-1))
        reward_K = torch.where(last_K, feedback.score_N[batch.response_K], 0.0)
        if penalised(self):
            reward_K = reward_K - self.beta * (batch.logp_K - batch.ref_logp_K)
        delta_K = reward_K + self.gamma * next_K - value_K
        return sums_to_go(delta_K, batch, self.gamma * self.lam)

    def loss_K(self, batch: Scored) -> Tensor:
        policy_K = surrogate(batch, batch.remembered["advantage"], self)
        return policy_K + self.vf_coef * self._value_error_K(batch) / 2

    def _value_error_K(self, batch: Scored) -> Tensor:
        """The larger of the two squared errors of each token's value."""
        value_K, old_K = batch.extra["value"], batch.remembered["value"]
        near_K = old_K + (value_K - old_K).clamp(-self.value_clip, self.value_clip)
        error_K = (value_K - batch.remembered["return"]) ** 2
        return torch.maximum(error_K, (near_K - batch.remembered["return"]) ** 2)

    def metrics(self, batch: Scored) -> dict[str, Tensor | Measured]:
        seen = {"value": batch.extra["value"], "value_loss": self._value_error_K(batch) / 2}
        return {**super().metrics(batch), **means_of_sampled(batch, seen)}
