"""Losses by name, one a file: numbers only, no model, tokenizer, recipe or rank.

An objective gives a loss to each of its *units* (a token, a response, a pair). The loop sums the
units' losses and divides by the number of units in the global batch, so the result does not depend
on how the batch was cut. `units` knows that number from the feedback alone, before any forward pass.

A new objective is a frozen dataclass in a new file of this folder, or anywhere else (`onestage.config`):

    @dataclass(frozen=True)
    class Hinge(Objective):
        unit = "pair"
        kinds = frozenset({"pair"})

        beta: float = 1.0

        def losses(self, batch: Scored) -> Tensor:
            return (1 - self.beta * batch.margin_P()).clamp(min=0)

`onestage.testing.check_objective` tries it on the laws that every objective obeys. On a batch that was
scored it gives the paper's number: `Hinge()(scored).mean()`.

Legend: K scored tokens, N responses, P pairs, U units, M measurements. Responses are numbered
0..N-1 in a batch; `response_K` says which response a token belongs to, `record_N` which record.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from onestage.config import Plugins
from onestage.data.record import KINDS, ROLES, Kind, Role

Unit = Literal["token", "response", "pair"]

Need = Literal["logp", "reference", "entropy", "value", "reward", "worked"]
"""For each token, of the policy: its log-probability, the entropy of the distribution it was drawn from
(nats), what a value head expects before it; of the reference: the log-probability; of a reward model:
the reward of the text so far. Of a checkable problem: its worked answer beside the sampled ones."""

CODE: Mapping[Kind, int] = {kind: code for code, kind in enumerate(KINDS)}

ROLE: Mapping[Role, int] = {role: code for code, role in enumerate(ROLES)}


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

    @property
    def response_K(self) -> Tensor:
        """The response each token belongs to."""
        numbers_N = torch.arange(len(self.tokens_N), device=self.tokens_N.device)
        return torch.repeat_interleave(numbers_N, self.tokens_N)

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
    """Detached values and the records they belong to, both (M)."""

    value_M: Tensor
    record_M: Tensor

    @classmethod
    def of(cls, value: Tensor | Measured, feedback: Feedback) -> Measured:
        """From values of the responses (N), NaN where one has none."""
        if isinstance(value, Measured):
            return value
        has_N = ~value.isnan()
        return cls(value[has_N], feedback.record_N[has_N])


@dataclass(frozen=True, slots=True)
class Weighted:
    """Weighted values, their weights, and the records they belong to, all (M)."""

    value_M: Tensor
    weight_M: Tensor
    record_M: Tensor

    @classmethod
    def of_responses(cls, value_N: Tensor, feedback: Feedback) -> Weighted:
        """From values of the responses, NaN where one has none; weights are those of the records."""
        has_N, weight_N = ~value_N.isnan(), feedback.weight_N
        return cls((weight_N * value_N)[has_N], weight_N[has_N], feedback.record_N[has_N])


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
    observed: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """(sum, count) of what a `Stateful` objective observes; added up over the global batch."""

    def mean(self) -> Tensor:
        """The loss of the batch as papers write it: a scalar, differentiable; NaN without any unit."""
        return self.loss_U.sum() / self.weight_U.sum()


class Objective(abc.ABC):
    """A frozen dataclass of hyper-parameters whose defaults are the published setting.

    `unit`, `kinds`, `needs` and `lowest` are class attributes, or properties where the options decide.
    """

    lowest: float | None = 0.0
    """A bound that the reported loss never falls below, if there is one whatever the data."""
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

    @property
    def needs(self) -> frozenset[Need]:
        """What it must be told of every token; a model that does not give it is refused."""
        return frozenset({"logp", "reference"})

    def units(self, feedback: Feedback) -> Units:
        """Weights and records of the units (U), known without a forward pass. Default: every token,
        response or pair; hints and worked answers weigh nothing."""
        return feedback.units(self.unit, feedback.weight_N * feedback.are("response"))

    @abc.abstractmethod
    def losses(self, batch: Scored) -> Tensor:
        """Loss (U) of each of the `units`, unweighted and differentiable."""

    def metrics(self, batch: Scored) -> dict[str, Tensor | Measured]:
        """Numbers to log, of each response (N), NaN where it has none; or of anything else, with its
        record. One of responses that is called `loss` is reported in place of what is minimised."""
        return {}

    def asks(self, again: bool) -> frozenset[Need]:
        """What `remember` needs to know of sampled responses. `again`: whether the policy is updated
        before the last step that trains on them. A reference that the loss needs is always known."""
        return frozenset()

    def remember(self, batch: Scored, again: bool) -> dict[str, Tensor]:
        """Numbers (K each) to keep with sampled responses, by name; made once, of everything that was
        sampled together. In `batch`, log-probabilities it has not asked for are zeros."""
        return {}

    def __call__(self, batch: Scored) -> Loss:
        """The losses of a batch, weighted, and all that is measured of it."""
        batch = self._complete(batch)
        units, feedback = self.units(batch.feedback), batch.feedback
        loss_U = self.losses(batch) * units.weight_U
        with torch.no_grad():
            seen = batch.detached()
            metrics = self.metrics(seen)
            observed = self.observe(seen) if isinstance(self, Stateful) else {}
        reported = Weighted(loss_U.detach(), units.share_U, units.record_U)
        shown = metrics.pop("loss", None)
        if isinstance(shown, Tensor):
            reported = Weighted.of_responses(shown, feedback)
        return Loss(
            loss_U,
            units.share_U,
            units.record_U,
            reported,
            {name: Measured.of(value, feedback) for name, value in metrics.items()},
            {name: _sum_and_count(value_N) for name, value_N in observed.items()},
        )

    def _complete(self, batch: Scored) -> Scored:
        """The batch with what it lacks outside of a run: a state, and what is remembered of answers."""
        if isinstance(self, Stateful) and not batch.state:
            batch = replace(batch, state=self.start())
        if not batch.remembered:
            with torch.no_grad():
                remembered = self.remember(batch.detached(), again=False)
            batch = replace(batch, remembered=remembered)
        return batch


def _sum_and_count(value_N: Tensor) -> tuple[float, float]:
    has_N = ~value_N.isnan()
    return float(value_N[has_N].sum()), float(has_N.sum())


@runtime_checkable
class Stateful(Protocol):
    """An objective that carries numbers from step to step; they are kept in checkpoints."""

    def start(self) -> dict[str, float]:
        """The state before the first step."""
        ...

    def observe(self, batch: Scored) -> dict[str, Tensor]:
        """Numbers of responses (N), NaN where one has none, whose means the next state is made of."""
        ...

    def advance(
        self, state: Mapping[str, float], observed: Mapping[str, float]
    ) -> dict[str, float]:
        """The state after a step, from the means of what was `observed` over the step's global batch;
        what no response of the batch had is left out."""
        ...


PLUGINS = Plugins("objective", __name__, Objective, {"una": "uft"})  # type: ignore[type-abstract]
names, find = PLUGINS.names, PLUGINS.find


def make(given: Any, longest: int | None = None) -> Objective:
    """An objective with its options checked. `longest`: the run's `max_completion_length`."""
    return PLUGINS.make(given, {} if longest is None else {"max_completion_length": longest})


def __getattr__(name: str) -> Any:
    """`onestage.objectives.DPO`: the file is read when the class is asked for."""
    return PLUGINS.by_class(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *(find(name).__name__ for name in PLUGINS.built_in())})
