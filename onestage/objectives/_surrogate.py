"""What the objectives of reinforcement learning share: a clipped surrogate over sampled tokens.

Of a token t of a response i, with r = exp(logp - old_logp) the ratio to the policy that sampled it and A
its advantage (Schulman et al. 2017, arXiv 1707.06347, Eq. 7),

    l_it = - min(r A, clip(r, 1 - epsilon, 1 + epsilon_high) A) + beta KL_it - entropy_coef H_it

Where a response is trained on once, before any other update (`old_logp` is not kept), r is 1 and its
gradient that of REINFORCE. KL to the reference is estimated on the token that was sampled, with
d = ref_logp - logp: k1 = -d, whose mean is right but whose gradient inside a loss is not, and
k3 = exp(d) - d - 1 (Schulman 2020), clamped as in the authors' code of UFT. With `kl_in: reward` the
penalty is taken off the reward instead (k1, old log-probabilities), as in RLHF.

An objective says what the advantage is, and, where it trains on more than what was sampled, on which
responses (`trained_N`) and which of these the mean is over (`units_N`). KL and entropy are of sampled
responses alone: elsewhere one token tells neither.

The loss that is told is minus the mean reward; the surrogate's value is the metric `policy_loss`.
Groups whose rewards are all equal have advantage 0; they count in the mean, as in TRL.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from onestage.data.record import Kind
from onestage.objectives import (
    Extra,
    Feedback,
    Known,
    Loss,
    Measured,
    Objective,
    Scored,
    Told,
    Unit,
)

RATIO_LIMIT = 20.0
"""Of differences of log-probabilities before `exp`, so that no gradient is 0 times infinity."""


KL_LIMIT = 10.0
"""Of a token's k3, which explodes where the policy has all but given a token up."""


WHITENING = 1e-8
"""Added to a variance that is divided by (TRL, verl)."""


@dataclass(frozen=True)
class PolicyGradient(Objective):
    beta: float = 0.0
    """Coefficient of the KL to the reference; 0 needs no reference."""
    kl_in: Literal["loss", "reward"] = "loss"
    kl_estimator: Literal["k1", "k3"] = "k3"
    """Of `kl_in: loss`."""
    entropy_coef: float = 0.0
    """Coefficient of an entropy bonus."""
    epsilon: float | None = 0.2
    """Clip range of the ratio; null: no clip."""
    epsilon_high: float | None = None
    """Upper clip range (DAPO's clip-higher); default `epsilon`."""
    importance_sampling_level: Literal["token", "sequence"] = "token"
    """`sequence`: one ratio a response, the geometric mean of its tokens' (GSPO, arXiv 2507.18071)."""
    loss_type: Literal["grpo", "dapo", "dr_grpo", "sum"] = "dapo"
    """Mean over: the tokens of each response, then responses (`grpo`); all tokens of the batch (`dapo`);
    responses, of a response's tokens over `max_completion_length` (`dr_grpo`), or of their `sum`."""
    max_completion_length: int = 256
    """Of `dr_grpo`; a run fills in its own."""

    def __post_init__(self) -> None:
        if self.beta < 0 or self.entropy_coef < 0:
            raise ValueError(
                f"beta and entropy_coef must be at least 0, got {self.beta} and {self.entropy_coef}"
            )
        if any(value is not None and value <= 0 for value in (self.epsilon, self.epsilon_high)):
            raise ValueError(
                f"epsilon and epsilon_high must be positive, got {self.epsilon}, {self.epsilon_high}"
            )
        if self.epsilon is None and self.epsilon_high is not None:
            raise ValueError("epsilon: null turns the clip off; epsilon_high would do nothing")

    @property
    def lowest(self) -> None:  # type: ignore[override]
        return None  # minus the greatest reward, which only the user knows

    @property
    def needs_reference(self) -> bool:  # type: ignore[override]
        return self.beta > 0

    @property
    def reads(self) -> frozenset[Extra]:  # type: ignore[override]
        return frozenset({"entropy"}) if self.entropy_coef else frozenset()

    @property
    def unit(self) -> Unit:
        return "token" if self.loss_type == "dapo" else "response"

    @property
    def kinds(self) -> frozenset[Kind]:
        return frozenset({"check"})

    def units_N(self, feedback: Feedback) -> Tensor:
        """Mask (N) of the responses that the mean is over."""
        return feedback.are("response")

    def trained_N(self, feedback: Feedback) -> Tensor:
        """Mask (N) of the responses whose tokens have a loss."""
        return self.units_N(feedback)

    def count(self, feedback: Feedback) -> Tensor:
        weight_N = feedback.weight_N * self.units_N(feedback)
        return (weight_N * feedback.tokens_N).sum() if self.unit == "token" else weight_N.sum()

    def knows(self, again: bool) -> frozenset[Known]:
        penalised = self.beta > 0 and self.kl_in == "reward"
        return frozenset({"logp"}) if again or penalised else frozenset()

    @abc.abstractmethod
    def advantage_K(self, batch: Scored) -> Tensor:
        """Advantages (K) of all that was sampled together, from the policy that sampled it. What is not
        trained on may be anything, NaN too."""

    def reward_N(self, batch: Scored) -> Tensor:
        """Rewards (N), without the KL penalty of whole responses where it is in the reward."""
        reward_N = batch.feedback.score_N
        if self.beta and self.kl_in == "reward":
            return reward_N - self.beta * batch.log_ratio_N()
        return reward_N

    def weigh(self, batch: Scored, again: bool) -> dict[str, Tensor]:
        trained_K = self.trained_N(batch.feedback)[batch.response_K]
        kept = {"advantage": torch.where(trained_K, self.advantage_K(batch).float(), 0.0)}
        return kept | ({"old_logp": batch.logp_K} if again else {})

    def __call__(self, batch: Scored) -> Loss:
        return self.reduced(batch, *self.losses(batch))

    def losses(self, batch: Scored) -> tuple[Tensor, dict[str, Tensor]]:
        """Losses (K) of tokens, where they are trained on, and what is measured of them (K each)."""
        ratio_K, advantage_K = self._ratio_K(batch), batch.kept["advantage"]
        policy_K = -ratio_K * advantage_K
        seen = {"policy_loss": policy_K}
        if self.epsilon is not None:
            high = self.epsilon if self.epsilon_high is None else self.epsilon_high
            clipped_K = ratio_K.clamp(1 - self.epsilon, 1 + high)
            bounded_K = torch.maximum(policy_K, -clipped_K * advantage_K)
            seen = {"policy_loss": bounded_K, "clip_rate": (bounded_K > policy_K).float()}
        loss_K = seen["policy_loss"]
        sampled_K = batch.feedback.are("response")[batch.response_K]
        if self.beta:
            seen["kl"] = kl_K(batch, "k3")
            if self.kl_in == "loss":
                penalty_K = self.beta * kl_K(batch, self.kl_estimator)
                loss_K = loss_K + torch.where(sampled_K, penalty_K, 0.0)
        if "entropy" in batch.extra:
            seen["entropy"] = batch.extra["entropy"]
        if self.entropy_coef:
            bonus_K = self.entropy_coef * batch.extra["entropy"]
            loss_K = loss_K - torch.where(sampled_K, bonus_K, 0.0)
        return loss_K, seen

    def _ratio_K(self, batch: Scored) -> Tensor:
        change_K = batch.logp_K - batch.kept.get("old_logp", batch.logp_K.detach())
        change_K = change_K.clamp(-RATIO_LIMIT, RATIO_LIMIT)
        if self.importance_sampling_level == "token":
            return change_K.exp()
        mean_N = batch.per_response(change_K) / batch.feedback.tokens_N
        # the value of the sequence's ratio, with the gradient of each token's own log-probability
        return (mean_N.detach()[batch.response_K] + batch.logp_K - batch.logp_K.detach()).exp()

    def reduced(self, batch: Scored, loss_K: Tensor, seen: Mapping[str, Tensor]) -> Loss:
        """Losses of the units from those of tokens; `seen` (K each) is measured as the mean over the
        tokens of each sampled response. What is trained on and no unit weighs nothing in the mean."""
        feedback, response_K = batch.feedback, batch.response_K
        loss_K = torch.where(self.trained_N(feedback)[response_K], loss_K, 0.0)
        weight_N = feedback.weight_N * self.units_N(feedback)
        own_N = feedback.are("response")
        record_M = feedback.record_N[own_N]
        metrics = {
            name: Measured((batch.per_response(v_K.detach()) / feedback.tokens_N)[own_N], record_M)
            for name, v_K in seen.items()
        }
        told_N = feedback.weight_N * -feedback.score_N
        level = Told(told_N[own_N], feedback.weight_N[own_N], record_M)
        if self.unit == "token":
            return Loss(
                loss_K * feedback.weight_N[response_K],
                weight_N[response_K],
                feedback.record_N[response_K],
                metrics=metrics,
                level=level,
            )
        total_N = batch.per_response(loss_K) * feedback.weight_N
        if self.loss_type == "grpo":
            total_N = total_N / feedback.tokens_N
        elif self.loss_type == "dr_grpo":
            total_N = total_N / self.max_completion_length
        return Loss(total_N, weight_N, feedback.record_N, metrics=metrics, level=level)


def kl_K(batch: Scored, estimator: Literal["k1", "k3"]) -> Tensor:
    """Estimate (K) of KL(policy || reference) at each sampled token; differentiable."""
    gap_K = (batch.ref_logp_K - batch.logp_K).clamp(-RATIO_LIMIT, RATIO_LIMIT)
    if estimator == "k1":
        return -gap_K
    return (gap_K.exp() - gap_K - 1).clamp(-KL_LIMIT, KL_LIMIT)


def group_sums(value_N: Tensor, mask_N: Tensor, feedback: Feedback) -> Tensor:
    """The sum (N, float64) of a value over the masked responses of each response's own record.

    In float64 the mean of equal rewards is exactly the reward, so that their advantages are exactly 0.
    """
    size = int(feedback.record_N.max()) + 1 if len(feedback.record_N) else 0
    wide = torch.float32 if value_N.device.type == "mps" else torch.float64  # it has no other
    total = value_N.new_zeros(size, dtype=wide)
    total.index_add_(0, feedback.record_N, torch.where(mask_N, value_N.to(wide), 0.0))
    return total[feedback.record_N]


def group_means(value_N: Tensor, mask_N: Tensor, feedback: Feedback) -> Tensor:
    """Its mean (N, float64) over them; 0 where a record has none."""
    count_N = group_sums(mask_N.float(), mask_N, feedback)
    return group_sums(value_N, mask_N, feedback) / count_N.clamp(min=1)


def sums_to_go(value_K: Tensor, batch: Scored, factor: float = 1.0) -> Tensor:
    """v_t + factor v_{t+1} + factor^2 v_{t+2} + ... (K), to the end of each response."""
    response_K, place_K = batch.response_K, batch.place_K()
    longest = int(place_K.max()) + 1 if len(place_K) else 0
    table_NT = value_K.new_zeros(len(batch.feedback.kind_N), longest)
    table_NT[response_K, place_K] = value_K
    for t in range(longest - 2, -1, -1):
        table_NT[:, t] += factor * table_NT[:, t + 1]
    return table_NT[response_K, place_K]


def whitened(value_K: Tensor, mask_K: Tensor) -> Tensor:
    """A value brought to mean 0 and deviation 1 over the masked tokens."""
    value_M = value_K[mask_K].double()
    if len(value_M) < 2:
        return value_K - (value_M.mean() if len(value_M) else 0.0)
    return (value_K - value_M.mean()) / (value_M.var() + WHITENING).sqrt()
