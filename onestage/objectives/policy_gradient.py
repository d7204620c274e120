"""What the objectives of reinforcement learning share: a clipped surrogate over sampled tokens.

Of a token t of a response i, with r = exp(logp - old_logp) the ratio to the policy that sampled it and A
its advantage (Schulman et al. 2017, arXiv 1707.06347, Eq. 7),

    l_it = - min(r A, clip(r, 1 - epsilon, 1 + epsilon_high) A) + beta KL_it - entropy_coef H_it

Where a response is trained on once, before any other update (`old_logp` is not kept), r is 1 and its
gradient that of REINFORCE. KL to the reference is estimated on the token that was sampled, with
d = ref_logp - logp: k1 = -d, whose mean is right but whose gradient inside a loss is not, and
k3 = exp(d) - d - 1 (Schulman 2020), clamped as in the authors' code of UFT. With `kl_in: reward` the
penalty is taken off the reward instead (k1, old log-probabilities), as in RLHF.

The loss that is told is minus the mean reward; the surrogate's value is the metric `policy_loss`.
Groups whose rewards are all equal have advantage 0; they count in the mean, as in TRL.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from onestage.objectives.contract import (
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
from onestage.records.record import Kind

RATIO_LIMIT = 20.0
"""Of differences of log-probabilities before `exp`, so that no gradient is 0 times infinity."""
KL_LIMIT = 10.0
"""Of a token's k3, which explodes where the policy has all but given a token up."""


@dataclass(frozen=True)
class PolicyGradient(Objective):
    beta: float = 0.0
    """Coefficient of the KL to the reference; 0 needs no reference."""
    kl_in: Literal["loss", "reward"] = "loss"
    kl_estimator: Literal["k1", "k3"] = "k3"
    """Of `kl_in: loss`."""
    entropy_coef: float = 0.0
    """Coefficient of an entropy bonus."""
    epsilon: float = 0.2
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
        if self.epsilon <= 0 or (self.epsilon_high or 1.0) <= 0:
            raise ValueError(
                f"epsilon and epsilon_high must be positive, got {self.epsilon}, {self.epsilon_high}"
            )

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

    def count(self, feedback: Feedback) -> Tensor:
        weight_N = feedback.weight_N * feedback.are("response")
        return (weight_N * feedback.tokens_N).sum() if self.unit == "token" else weight_N.sum()

    def knows(self, again: bool) -> frozenset[Known]:
        penalised = self.beta > 0 and self.kl_in == "reward"
        return frozenset({"logp"}) if again or penalised else frozenset()

    @abc.abstractmethod
    def advantage_N(self, reward_N: Tensor, feedback: Feedback) -> Tensor:
        """Advantage (N) of each sampled response, from rewards (N) that hold the KL penalty, if any."""

    def weigh(self, batch: Scored, again: bool) -> dict[str, Tensor]:
        reward_N = batch.feedback.score_N
        if self.beta and self.kl_in == "reward":
            reward_N = reward_N - self.beta * batch.log_ratio_N()
        advantage_N = self.advantage_N(reward_N, batch.feedback)
        kept = {"advantage": advantage_N.nan_to_num(0.0)[batch.response_K]}
        return kept | ({"old_logp": batch.logp_K} if again else {})

    def __call__(self, batch: Scored) -> Loss:
        feedback = batch.feedback
        own_K = feedback.are("response")[batch.response_K]
        ratio_K = self._ratio_K(batch)
        advantage_K = batch.kept["advantage"]
        high = self.epsilon if self.epsilon_high is None else self.epsilon_high
        clipped_K = ratio_K.clamp(1 - self.epsilon, 1 + high)
        policy_K = -torch.minimum(ratio_K * advantage_K, clipped_K * advantage_K)
        loss_K = policy_K
        if self.beta and self.kl_in == "loss":
            loss_K = loss_K + self.beta * kl_K(batch, self.kl_estimator)
        if self.entropy_coef:
            loss_K = loss_K - self.entropy_coef * batch.extra["entropy"]
        outside_K = (policy_K > -ratio_K * advantage_K).float()
        return self.reduced(batch, torch.where(own_K, loss_K, 0.0), policy_K, outside_K)

    def _ratio_K(self, batch: Scored) -> Tensor:
        change_K = batch.logp_K - batch.kept.get("old_logp", batch.logp_K.detach())
        change_K = change_K.clamp(-RATIO_LIMIT, RATIO_LIMIT)
        if self.importance_sampling_level == "token":
            return change_K.exp()
        mean_N = batch.per_response(change_K) / batch.feedback.tokens_N
        # the value of the sequence's ratio, with the gradient of each token's own log-probability
        return (mean_N.detach()[batch.response_K] + batch.logp_K - batch.logp_K.detach()).exp()

    def reduced(self, batch: Scored, loss_K: Tensor, policy_K: Tensor, outside_K: Tensor) -> Loss:
        """Losses of the units from those of tokens, with what is measured of every response.

        `policy_K`: the surrogate alone. `outside_K`: 1 where the clip took a token's gradient away.
        """
        feedback = batch.feedback
        own_N = feedback.are("response")
        weight_N, record_M = feedback.weight_N * own_N, feedback.record_N[own_N]
        length_N = feedback.tokens_N
        metrics = {
            "policy_loss": Measured(_mean_M(batch, policy_K, own_N), record_M),
            "clip_rate": Measured(_mean_M(batch, outside_K, own_N), record_M),
        }
        if self.beta:
            metrics["kl"] = Measured(_mean_M(batch, kl_K(batch, "k3"), own_N), record_M)
        if "entropy" in batch.extra:
            metrics["entropy"] = Measured(_mean_M(batch, batch.extra["entropy"], own_N), record_M)
        level = Told(
            (-feedback.score_N * feedback.weight_N)[own_N], feedback.weight_N[own_N], record_M
        )
        if self.loss_type == "dapo":
            weight_K = weight_N[batch.response_K]
            return Loss(
                loss_K * weight_K,
                weight_K,
                feedback.record_N[batch.response_K],
                metrics=metrics,
                level=level,
            )
        total_N = batch.per_response(loss_K)
        if self.loss_type == "grpo":
            total_N = total_N / length_N
        elif self.loss_type == "dr_grpo":
            total_N = total_N / self.max_completion_length
        return Loss(total_N * weight_N, weight_N, feedback.record_N, metrics=metrics, level=level)


def kl_K(batch: Scored, estimator: Literal["k1", "k3"]) -> Tensor:
    """Estimate (K) of KL(policy || reference) at each sampled token; differentiable."""
    gap_K = (batch.ref_logp_K - batch.logp_K).clamp(-RATIO_LIMIT, RATIO_LIMIT)
    if estimator == "k1":
        return -gap_K
    return (gap_K.exp() - gap_K - 1).clamp(-KL_LIMIT, KL_LIMIT)


def _mean_M(batch: Scored, value_K: Tensor, own_N: Tensor) -> Tensor:
    return (batch.per_response(value_K.detach()) / batch.feedback.tokens_N)[own_N]


def group_sums(value_N: Tensor, feedback: Feedback) -> Tensor:
    """The sum (N) of a value over the sampled responses of each response's own group."""
    own_N = feedback.are("response")
    size = int(feedback.record_N.max()) + 1 if len(feedback.record_N) else 0
    total = value_N.new_zeros(size)
    total.index_add_(0, feedback.record_N, torch.where(own_N, value_N, 0.0))
    return total[feedback.record_N]
