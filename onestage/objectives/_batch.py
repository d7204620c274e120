"""What an objective sees and what it returns: batches of numbers about tokens and responses.

Legend: K scored tokens, N responses, P pairs, U units, M measurements. Responses are numbered
0..N-1 in a batch; `response_K` says which response a token belongs to, `record_N` which record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from onestage.data.kinds import KINDS, Kind
from onestage.data.record import ROLES, Role

Unit = Literal["token", "response", "pair"]

CODE: Mapping[Kind, int] = {kind: code for code, kind in enumerate(KINDS)}

ROLE: Mapping[Role, int] = {role: code for code, role in enumerate(ROLES)}


def wide(device: torch.device) -> torch.dtype:
    """What sums of very many numbers are kept in: float64, which Apple's devices do not have."""
    return torch.float32 if device.type == "mps" else torch.float64


@dataclass(frozen=True, slots=True)
class Units:
    """What a loss is a mean over (U each)."""

    weight_U: Tensor
    """Of a unit's loss."""
    record_U: Tensor
    counted_U: Tensor | None = None
    """1 for a unit of the mean, 0 for what adds to the loss beside them; None: all are units."""

    @property
    def share_U(self) -> Tensor:
        """What each counts in the mean."""
        return self.weight_U if self.counted_U is None else self.weight_U * self.counted_U

    @property
    def count(self) -> Tensor:
        """What the sum of the losses is divided by (a scalar)."""
        return self.share_U.sum()


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
    """Record of each response (int64); the responses of a group or pair share it, and are neighbours."""
    pair_P2: Tensor
    """Response numbers of (chosen, rejected) of each pair (int64)."""
    role_N: Tensor
    """What each response is, as `ROLE` (int64): given in the data or sampled (`response`), or of a
    checkable problem the `hint` that was given (its score is NaN) or the `worked` answer; or the
    answer to another prompt (`stranger`), or a sampled one behind a prompt that holds the solution
    (`taught`), both without a score."""
    scored: int | None = None
    """All `tokens_N` together, where they were counted before they went to the device, which would
    else be waited for."""
    host: Feedback | None = None
    """The same before it went to the device (see `_host`)."""

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

    @property
    def response_K(self) -> Tensor:
        """The response each token belongs to."""
        numbers_N = torch.arange(len(self.tokens_N), device=self.tokens_N.device)
        return torch.repeat_interleave(numbers_N, self.tokens_N, output_size=self.scored)

    def units(self, unit: Unit, weight_N: Tensor, counted_N: Tensor | None = None) -> Units:
        """All tokens, responses or pairs as units. A pair weighs as much as its chosen side."""
        if unit == "token":
            at_U = self.response_K
        elif unit == "pair":
            at_U = self.pair_P2[:, 0]
        else:
            return Units(weight_N, self.record_N, counted_N)
        counted_U = None if counted_N is None else counted_N[at_U]
        return Units(weight_N[at_U], self.record_N[at_U], counted_U)


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
    """What the objective carries from step to step (`Stateful`); empty: that of the start."""
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    """What the objective `needs` of the policy beside logp (K each, float32)."""
    remembered: Mapping[str, Tensor] = field(default_factory=dict)
    """What it has made of sampled responses (`Objective.remember`), before the first update on them (K
    each); empty: they were sampled by the policy as it is."""

    def per_response(self, value_K: Tensor) -> Tensor:
        """Sums (N) of a token value over each response, in float32 (in float64 where it is given so)."""
        wide = torch.promote_types(value_K.dtype, torch.float32)
        total_N = value_K.new_zeros(len(self.feedback.kind_N), dtype=wide)
        return total_N.index_add(0, self.response_K, value_K.to(wide))

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

    def margin_P(self) -> Tensor:
        """Log-ratio of each pair's chosen response minus that of the rejected one."""
        return self.apart_P(self.log_ratio_N())

    def apart_P(self, value_N: Tensor) -> Tensor:
        """A value of each pair's chosen response minus that of the rejected one."""
        chosen_P, rejected_P = self.feedback.pair_P2.unbind(1)
        return value_N[chosen_P] - value_N[rejected_P]

    def detached(self) -> Scored:
        """The same numbers without their gradients."""
        extra = {name: value_K.detach() for name, value_K in self.extra.items()}
        return replace(self, logp_K=self.logp_K.detach(), extra=extra)


@dataclass(frozen=True, slots=True)
class Measured:
    """Detached values and the records they belong to, both (M).

    Of responses of which some have no value, those are left out only where `value_M` or `record_M` is
    read: which they are must be fetched from the device, and that waits for all that it has to do.
    """

    every: Tensor
    record: Tensor
    """Of each of `every`."""
    gaps: bool = False
    """Whether NaN among `every` means that there is no value."""

    @classmethod
    def of(cls, value: Tensor | Measured, feedback: Feedback) -> Measured:
        """From values of the responses (N), NaN where one has none."""
        if isinstance(value, Measured):
            return value
        return cls(value, feedback.record_N, gaps=True)

    @property
    def value_M(self) -> Tensor:
        return self.every[~self.every.isnan()] if self.gaps else self.every

    @property
    def record_M(self) -> Tensor:
        return self.record[~self.every.isnan()] if self.gaps else self.record


@dataclass(frozen=True, slots=True)
class Weighted:
    """Weighted values, their weights, and the records they belong to, all (M)."""

    value_M: Tensor
    weight_M: Tensor
    record_M: Tensor

    @classmethod
    def of_responses(cls, value_N: Tensor, feedback: Feedback) -> Weighted:
        """From values of the responses, NaN where one has none, which weighs nothing; weights are
        those of the records."""
        has_N = ~value_N.isnan()
        weight_N = feedback.weight_N.where(has_N, 0.0)
        return cls(weight_N * value_N.where(has_N, 0.0), weight_N, feedback.record_N)


@dataclass(frozen=True, slots=True)
class Loss:
    """What an objective makes of a batch."""

    loss_U: Tensor
    """Weighted losses, differentiable. Their sum is what this batch adds to the numerator."""
    weight_U: Tensor
    """What they count; the sum is what this batch adds to the denominator."""
    record_U: Tensor
    reported: Weighted
    """The loss as it is shown, detached. It is another one where the value of what is minimised says
    nothing: the surrogate of a policy gradient is 0 at every policy, while its objective is the mean
    reward."""
    metrics: Mapping[str, Measured] = field(default_factory=dict)
    seen: Mapping[str, Tensor] = field(default_factory=dict)
    """Weighted sum and weight (2) of what a `Stateful` objective observes, where it was computed."""

    @property
    def observed(self) -> dict[str, tuple[float, float]]:
        """(weighted sum, weight) of what a `Stateful` objective observes, to be added up."""
        return {name: (pair[0].item(), pair[1].item()) for name, pair in self.seen.items()}

    def mean(self) -> Tensor:
        """The loss of the batch as papers write it: a scalar, differentiable; NaN without any unit."""
        return self.loss_U.sum() / self.weight_U.sum()
