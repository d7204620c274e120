"""What an objective sees and returns: numbers only, no model, tokenizer, recipe or rank.

An objective gives a loss to each of its *units* (a token, a response, a pair). The loop sums the
units' losses and divides by the number of units in the global batch, so the result does not depend
on how the batch was cut. `count` knows that number from the feedback alone, before any forward pass.

Legend: K scored tokens, N responses, P pairs, U units, M measurements. Responses are numbered
0..N-1 in a batch, records 0..; `response_K` says which response a token belongs to.

Objectives by name.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from onestage.config import Plugins
from onestage.data.record import KINDS, ROLES, Kind, Role

Unit = Literal["token", "response", "pair"]


Task = Literal["causal", "reward"]
"""The sort of model: one that gives tokens log-probabilities, or one that judges texts."""


Extra = Literal["entropy", "value"]
"""Numbers of the policy for a token that are made only where an objective reads them: the entropy of its
distribution (nats), and what the value head expects before it."""


Known = Literal["logp", "reference", "entropy", "value"]


CODE: Mapping[Kind, int] = {kind: code for code, kind in enumerate(KINDS)}


ROLE: Mapping[Role, int] = {role: code for code, role in enumerate(ROLES)}


@dataclass(frozen=True, slots=True)
class Feedback:
    """What is known about the responses of a batch before the model has seen them."""

    kind_N: Tensor
    """Kind of the record a response belongs to, as `CODE` (int64)."""
    score_N: Tensor
    """Score in [0, 1] (labels 1 or 0, the two sides of a pair only if given); NaN where none."""
    weight_N: Tensor
    """Weight of the response's record (float32)."""
    tokens_N: Tensor
    """Scored tokens of each response (int64)."""
    record_N: Tensor
    """Record of each response (int64); the responses of a group or pair share it."""
    pair_P2: Tensor
    """Response numbers of (chosen, rejected) of each pair (int64)."""
    role_N: Tensor
    """What each response is, as `ROLE` (int64): given in the data or sampled (`response`), or of a
    checkable problem the `hint` that was given (its score is NaN) or the `worked` answer."""

    def of(self, *kinds: Kind) -> Tensor:
        """Mask (N) of the responses whose record is of one of these kinds."""
        mask_N = torch.zeros_like(self.kind_N, dtype=torch.bool)
        for kind in kinds:
            mask_N |= self.kind_N == CODE[kind]
        return mask_N

    def are(self, role: Role) -> Tensor:
        """Mask (N) of the responses of one role."""
        return self.role_N == ROLE[role]

    @property
    def rejected_N(self) -> Tensor:
        """Mask (N) of the rejected sides of pairs."""
        mask_N = torch.zeros_like(self.kind_N, dtype=torch.bool)
        mask_N[self.pair_P2[:, 1]] = True
        return mask_N


@dataclass(frozen=True, slots=True)
class Scored:
    """The feedback with the policy's and the reference's log-probabilities (K, float32)."""

    feedback: Feedback
    logp_K: Tensor
    """Of a reward model: its reward for the text up to each token."""
    ref_logp_K: Tensor
    """The reference's; zeros where the objective does not need it."""
    response_K: Tensor
    state: Mapping[str, float] = field(default_factory=dict)
    """What the objective carries from step to step (`advance`)."""
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    """What the objective `reads` of the policy beside logp (K each, float32)."""
    kept: Mapping[str, Tensor] = field(default_factory=dict)
    """What it has made of sampled responses (`weigh`), before the first update on them (K each)."""

    def per_response(self, value_K: Tensor) -> Tensor:
        """Sums (N) of a token value over each response, in float32."""
        total_N = value_K.new_zeros(len(self.feedback.kind_N), dtype=torch.float32)
        return total_N.index_add(0, self.response_K, value_K.float())

    def place_K(self) -> Tensor:
        """Place (K, int64, from 0) of each token in its response; a response's tokens are neighbours."""
        tokens_N = self.feedback.tokens_N
        begin_N = tokens_N.cumsum(0) - tokens_N
        here_K = torch.arange(len(self.response_K), device=self.response_K.device)
        return here_K - begin_N[self.response_K]

    def reward_N(self) -> Tensor:
        """A reward model's reward of each response: that at its last token."""
        return self.logp_K[self.feedback.tokens_N.cumsum(0) - 1]

    def log_ratio_N(self) -> Tensor:
        """log pi(y|x) - log pi_ref(y|x) of each response, summed over its tokens.

        Differences are taken before the sum: they are small where the sums are large.
        """
        return self.per_response(self.logp_K - self.ref_logp_K)


@dataclass(frozen=True, slots=True)
class Measured:
    """Detached values and the records they belong to, both (M)."""

    value_M: Tensor
    record_M: Tensor


@dataclass(frozen=True, slots=True)
class Told:
    """Weighted values, their weights, and the records they belong to, all (M)."""

    value_M: Tensor
    weight_M: Tensor
    record_M: Tensor


@dataclass(frozen=True, slots=True)
class Loss:
    """Losses of the units, their weights (whose sum is `count`), and what was measured."""

    loss_U: Tensor
    """Weighted losses, differentiable. Their sum is what this batch adds to the numerator."""
    weight_U: Tensor
    record_U: Tensor
    metrics: Mapping[str, Measured] = field(default_factory=dict)
    observed: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """(sum, count) of what `advance` wants to know; added up over the global batch."""
    level: Told | None = None
    """What is told as the loss, where the value of what is minimised says nothing: the surrogate of a
    policy gradient is 0 at every policy, while its objective is the mean reward."""

    @property
    def told(self) -> Told:
        """Values, weights and records of what the loss is told as, detached."""
        if self.level is not None:
            return self.level
        return Told(self.loss_U.detach(), self.weight_U, self.record_U)


class Objective(abc.ABC):
    """A frozen dataclass of hyper-parameters whose defaults are the published setting."""

    task: Task = "causal"
    """The sort of model it trains."""
    needs_reference: bool = True
    reads: frozenset[Extra] = frozenset()
    """What its loss needs of the policy beside log-probabilities."""
    uses_worked: bool = False
    """Whether the worked answer of a checkable problem joins the sampled ones."""
    lowest: float | None = 0.0
    """A bound that the told loss never falls below, if there is one whatever the data."""
    beta: float = 0.0
    """Scale of the implicit reward; 0 for objectives that have none."""

    @property
    @abc.abstractmethod
    def unit(self) -> Unit:
        """What the loss is a mean over."""

    @property
    @abc.abstractmethod
    def kinds(self) -> frozenset[Kind]:
        """The kinds of records it can learn from, with the options it was given."""

    @abc.abstractmethod
    def count(self, feedback: Feedback) -> Tensor:
        """Weighted number of units (a scalar), known without a forward pass."""

    @abc.abstractmethod
    def __call__(self, batch: Scored) -> Loss:
        """Loss of each unit of the batch."""

    def knows(self, again: bool) -> frozenset[Known]:
        """What `weigh` needs to know of sampled responses. `again`: whether the policy is updated
        before the last step that trains on them."""
        return frozenset()

    def weigh(self, batch: Scored, again: bool) -> dict[str, Tensor]:
        """Numbers (K each) to keep with sampled responses, by name; made once, of everything that was
        sampled together. In `batch`, log-probabilities it has not asked to know are zeros."""
        return {}

    def initial_state(self) -> dict[str, float]:
        """What it carries from step to step, at the start. Kept in checkpoints."""
        return {}

    def advance(
        self, state: Mapping[str, float], observed: Mapping[str, float]
    ) -> dict[str, float]:
        """The state after a step, from the means observed over the step's global batch."""
        return dict(state)


def pair_weight_P(feedback: Feedback) -> Tensor:
    """Weight (P) of each pair."""
    return feedback.weight_N[feedback.pair_P2[:, 0]]


def pair_margin_P(batch: Scored) -> Tensor:
    """Log-ratio of the chosen response minus that of the rejected one (P)."""
    log_ratio_N = batch.log_ratio_N()
    chosen_P, rejected_P = batch.feedback.pair_P2.unbind(1)
    return log_ratio_N[chosen_P] - log_ratio_N[rejected_P]


def pair_loss(batch: Scored, loss_P: Tensor) -> Loss:
    """A `Loss` whose units are the batch's pairs."""
    weight_P = pair_weight_P(batch.feedback)
    record_P = batch.feedback.record_N[batch.feedback.pair_P2[:, 0]]
    return Loss(loss_P * weight_P, weight_P, record_P)


PLUGINS = Plugins("objective", __name__, Objective, {"una": "uft"})  # type: ignore[type-abstract]
names, find = PLUGINS.names, PLUGINS.find


def make(given: Any, longest: int | None = None) -> Objective:
    """An objective with its options checked. `longest`: the run's `max_completion_length`."""
    return PLUGINS.make(given, {} if longest is None else {"max_completion_length": longest})
