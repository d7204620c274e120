"""What the objectives of reinforcement learning share: a clipped surrogate over sampled tokens.

Of a token t of a response i, with r = exp(logp - old_logp) the ratio to the policy that sampled it and A
its advantage (Schulman et al. 2017, arXiv 1707.06347, Eq. 7),

    l_it = - min(r A, clip(r, 1 - epsilon, 1 + epsilon_high) A) + beta KL_it - entropy_coef H_it

Where a response is trained on once, before any other update (`old_logp` is not remembered), r is 1 and
its gradient that of REINFORCE. KL to the reference is estimated on the token that was sampled, with
d = ref_logp - logp: k1 = -d, whose mean is right but whose gradient inside a loss is not, and
k3 = exp(d) - d - 1 (Schulman 2020), clamped as in the authors' code of UFT. With `kl_in: reward` the
penalty is taken off the reward instead (k1, old log-probabilities), as in RLHF.

An objective says what the advantage is, and, where it trains on more than what was sampled, on which
responses (`trained_N`) and which of these the mean is over (`units_N`). KL and entropy are of sampled
responses alone: elsewhere one token tells neither.

The loss that is reported is minus the mean reward; the surrogate's value is the metric `policy_loss`.
Groups whose rewards are all equal have advantage 0; they count in the mean, as in TRL.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from onestage.objectives import Feedback, Measured, Need, Objective, Scored, Unit, Units, wide
from onestage.objectives._host import records

RATIO_LIMIT = 20.0
"""Of differences of log-probabilities before `exp`, so that no gradient is 0 times infinity."""

KL_LIMIT = 10.0
"""Of a token's k3, which explodes where the policy has all but given a token up."""

WHITENING = 1e-8
"""Added to a variance that is divided by (TRL, verl)."""


@dataclass(frozen=True)
class PolicyGradient(Objective):
    """The options that all of them have, and a mean over what was sampled."""

    kinds = frozenset({"check"})
    lowest = None  # minus the greatest reward, which only the user knows

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
    def needs(self) -> frozenset[Need]:
        found: set[Need] = {"logp"}
        if self.beta > 0:
            found.add("reference")
        if self.entropy_coef:
            found.add("entropy")
        return frozenset(found)

    @property
    def unit(self) -> Unit:
        return "token" if self.loss_type == "dapo" else "response"

    def units_N(self, feedback: Feedback) -> Tensor:
        """Mask (N) of the responses that the mean is over."""
        return feedback.are("response")

    def trained_N(self, feedback: Feedback) -> Tensor:
        """Mask (N) of the responses whose tokens have a loss."""
        return self.units_N(feedback)

    def units(self, feedback: Feedback) -> Units:
        """What is trained on and no unit counts nothing in the mean."""
        return feedback.units(self.unit, feedback.weight_N, self.units_N(feedback))

    def asks(self, again: bool) -> frozenset[Need]:
        return frozenset({"logp"}) if again or penalised(self) else frozenset()

    def remember(self, batch: Scored, again: bool) -> dict[str, Tensor]:
        trained_K = self.trained_N(batch.feedback)[batch.response_K]
        advantage_K = torch.where(trained_K, self.advantage_K(batch).float(), 0.0)
        return {"advantage": advantage_K} | ({"old_logp": batch.logp_K} if again else {})

    @abc.abstractmethod
    def advantage_K(self, batch: Scored) -> Tensor:
        """Advantages (K) of all that was sampled together, from the policy that sampled it. What is not
        trained on may be anything, NaN too."""

    def weighs_K(self, batch: Scored) -> Tensor:
        """What the surrogate multiplies ratios by (K): the advantage that was remembered."""
        return batch.remembered["advantage"]

    def loss_K(self, batch: Scored) -> Tensor:
        """Loss of each token, where it is trained on; anything elsewhere."""
        return surrogate(batch, self.weighs_K(batch), self)

    def losses(self, batch: Scored) -> Tensor:
        """Of tokens, or of responses from those of their tokens, as `loss_type` has it."""
        trained_K = self.trained_N(batch.feedback)[batch.response_K]
        loss_K = torch.where(trained_K, self.loss_K(batch), 0.0)
        if self.loss_type == "dapo":
            return loss_K
        total_N = batch.per_response(loss_K)
        if self.loss_type == "grpo":
            return total_N / batch.feedback.tokens_N
        return total_N / self.max_completion_length if self.loss_type == "dr_grpo" else total_N

    def metrics(self, batch: Scored) -> dict[str, Tensor | Measured]:
        own_N = batch.feedback.are("response")
        seen = {"loss": torch.where(own_N, -batch.feedback.score_N, torch.nan)}
        return {**seen, **means_of_sampled(batch, seen_K(batch, self.weighs_K(batch), self))}


def penalised(options: PolicyGradient) -> bool:
    """Whether the KL to the reference is taken off the reward."""
    return options.beta > 0 and options.kl_in == "reward"


def rewards_N(batch: Scored, options: PolicyGradient) -> Tensor:
    """Rewards (N), less the KL penalty of whole responses where it is in the reward."""
    reward_N = batch.feedback.score_N
    return reward_N - options.beta * batch.log_ratio_N() if penalised(options) else reward_N


def surrogate(batch: Scored, advantage_K: Tensor, options: PolicyGradient) -> Tensor:
    """The clipped surrogate (K) with KL penalty and entropy bonus, as the options have them."""
    loss_K = clipped(batch, advantage_K, options)[1]
    sampled_K = batch.feedback.are("response")[batch.response_K]
    if options.beta and options.kl_in == "loss":
        penalty_K = options.beta * kl_K(batch, options.kl_estimator)
        loss_K = loss_K + torch.where(sampled_K, penalty_K, 0.0)
    if options.entropy_coef:
        bonus_K = options.entropy_coef * batch.extra["entropy"]
        loss_K = loss_K - torch.where(sampled_K, bonus_K, 0.0)
    return loss_K


def clipped(batch: Scored, advantage_K: Tensor, options: PolicyGradient) -> tuple[Tensor, Tensor]:
    """- r A of each token, and the same with its ratio clipped where that is the larger one."""
    ratio_K = _ratio_K(batch, options.importance_sampling_level)
    plain_K = -ratio_K * advantage_K
    if options.epsilon is None:
        return plain_K, plain_K
    high = options.epsilon if options.epsilon_high is None else options.epsilon_high
    clipped_K = ratio_K.clamp(1 - options.epsilon, 1 + high)
    return plain_K, torch.maximum(plain_K, -clipped_K * advantage_K)


def _ratio_K(batch: Scored, level: Literal["token", "sequence"]) -> Tensor:
    # Not remembered where nothing is updated in between: a ratio of 1, with REINFORCE's gradient.
    change_K = batch.logp_K - batch.remembered.get("old_logp", batch.logp_K.detach())
    change_K = change_K.clamp(-RATIO_LIMIT, RATIO_LIMIT)
    if level == "token":
        return change_K.exp()
    mean_N = batch.per_response(change_K) / batch.feedback.tokens_N
    # the value of the sequence's ratio, with the gradient of each token's own log-probability
    return (mean_N.detach()[batch.response_K] + batch.logp_K - batch.logp_K.detach()).exp()


def seen_K(batch: Scored, advantage_K: Tensor, options: PolicyGradient) -> dict[str, Tensor]:
    """What is logged of the surrogate, of each token."""
    plain_K, bounded_K = clipped(batch, advantage_K, options)
    seen = {"policy_loss": bounded_K}
    if options.epsilon is not None:
        seen["clip_rate"] = (bounded_K > plain_K).float()
    if options.beta:
        seen["kl"] = kl_K(batch, "k3")
    if "entropy" in batch.extra:
        seen["entropy"] = batch.extra["entropy"]
    return seen


def means_of_sampled(batch: Scored, seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Means (N) of token values over each sampled response; NaN elsewhere."""
    own_N, tokens_N = batch.feedback.are("response"), batch.feedback.tokens_N
    return {
        name: torch.where(own_N, batch.per_response(value_K) / tokens_N, torch.nan)
        for name, value_K in seen.items()
    }


def group_advantage(
    batch: Scored,
    reward_N: Tensor,
    group_N: Tensor,
    scale: Literal["group", "batch", "none"],
    eps: float,
) -> Tensor:
    """Advantage (K) of each response: its reward (N) less the mean of its group (the masked responses of
    its record), over the deviation (n - 1) in the group or in everything, plus eps; `none`: over 1."""
    feedback = batch.feedback
    advantage_N = reward_N - group_means(reward_N, group_N, feedback)
    if scale == "batch":
        advantage_N = advantage_N / (_deviation(reward_N[group_N]) + eps)
    elif scale == "group":
        square_N = group_sums(advantage_N**2, group_N, feedback)
        count_N = group_sums(torch.ones_like(reward_N), group_N, feedback)
        deviation_N = (square_N / (count_N - 1).clamp(min=1)).sqrt()
        advantage_N = advantage_N / (deviation_N + eps)
    return advantage_N[batch.response_K]


def _deviation(value_M: Tensor) -> Tensor:
    return value_M.std() if len(value_M) > 1 else value_M.new_zeros(())


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
    dtype = wide(value_N.device)
    total = value_N.new_zeros(records(feedback), dtype=dtype)
    total.index_add_(0, feedback.record_N, torch.where(mask_N, value_N.to(dtype), 0.0))
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
    value_M = value_K[mask_K].to(wide(value_K.device))
    if len(value_M) < 2:
        return value_K - (value_M.mean() if len(value_M) else 0.0)
    return (value_K - value_M.mean()) / (value_M.var() + WHITENING).sqrt()
