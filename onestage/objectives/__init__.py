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

Legend: K scored tokens, N responses, P pairs, U units.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from onestage.config import Plugins
from onestage.data.kinds import Kind
from onestage.objectives._batch import (
    CODE,
    ROLE,
    Feedback,
    Loss,
    Measured,
    Scored,
    Unit,
    Units,
    Weighted,
    wide,
)

__all__ = [
    "CODE",
    "DIVERGENCES",
    "PLUGINS",
    "ROLE",
    "TOP",
    "Feedback",
    "Loss",
    "Measured",
    "Need",
    "Objective",
    "Scored",
    "Stateful",
    "Unit",
    "Units",
    "Weighted",
    "called",
    "find",
    "make",
    "names",
    "wide",
]

Need = Literal[
    "logp",
    "reference",
    "entropy",
    "top_entropy",
    "value",
    "forward_kl",
    "reverse_kl",
    "js",
    "rivals",
    "mixed_logp",
    "reward",
    "worked",
    "stranger",
    "taught",
]
"""For each token, of the policy: its log-probability, the entropy of the distribution it was drawn from
(nats) and of the `TOP` likeliest tokens of that one, brought to a sum of 1 (no gradient goes through
it), what a value head expects before it; of the reference: the log-probability; of both: KL(reference ||
policy), KL(policy || reference) and Jensen-Shannon divergence of the two distributions (nats), for which
`reference` must be needed too, and is asked in every step; of the policy alone: the mean of log(1 +
p(token) / p(rival)) over the likeliest `rivals` of the token, and its log-probability where each scored
token before it is read partly as the one that the policy would have said (`Objective.numbers` has how
many, and which part); of a reward model: the reward of the text so far. Of a checkable problem: its
worked answer beside the sampled ones, and, while it is remembered what they are, each of these behind a
prompt that holds the solution. Of a record that is drawn from a stream: the answer of the next record
behind its own prompt."""

GIVEN: frozenset[Need] = frozenset({"reference", "worked", "stranger", "taught"})
"""What is not read off the policy."""

DIVERGENCES: frozenset[Need] = frozenset({"forward_kl", "reverse_kl", "js"})
"""What compares whole distributions."""

BESIDE_LOGP: frozenset[Need] = DIVERGENCES | {"mixed_logp"}
"""What a loss can be made of, so that its slope by the token's log-probability is not all there is."""

TOP = 20
"""Tokens of `top_entropy`."""


class Objective(abc.ABC):
    """A frozen dataclass of hyper-parameters whose defaults are the published setting.

    `unit`, `kinds`, `needs` and `lowest` are class attributes, or properties where the options decide.
    """

    lowest: float | None = 0.0
    """A bound that the reported loss never falls below, if there is one whatever the data."""
    beta: float = 0.0
    """Scale of the implicit reward; 0 for objectives that have none."""
    relative: bool = False
    """Whether answers are only compared with the others of their group, so that one alone, or equal
    ones, teach nothing."""
    paper: str = ""
    """The number at arXiv of the paper that defines it, where there is one."""
    equation: str = ""
    """The loss of one of its units in a line; S(A) is the clipped surrogate of an advantage A."""
    at_start: str = ""
    """What that is where the policy is the reference."""
    second_opinion: str = ""
    """Whose loss and gradient agree with its own in its test, beside hand arithmetic."""

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

    @property
    def numbers(self) -> Mapping[Need, float]:
        """Numbers that go with what it needs: how many `rivals`; which share of its own guess is in what
        `mixed_logp` reads."""
        return {}

    def units(self, feedback: Feedback) -> Units:
        """Weights and records of the units (U), known without a forward pass. Default: every token,
        response or pair; what is no response of its own (a hint, a worked answer) weighs nothing."""
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
        try:
            batch = self._complete(batch)
            units, feedback = self.units(batch.feedback), batch.feedback
            loss_U = self.losses(batch) * units.weight_U
        except KeyError as error:
            if not set(error.args) & (self.needs - set(batch.extra)):
                raise
            raise ValueError(
                f"{called(self)} needs {error.args[0]} of every token, which this batch does not hold; "
                "score(policy, batch, reference, objective) reads all that it needs"
            ) from error
        with torch.no_grad():
            seen = batch.detached()
            metrics = self.metrics(seen)
            observed = self.observe(seen) if isinstance(self, Stateful) else {}
        reported = Weighted(loss_U.detach(), units.share_U, units.record_U)
        # Of a policy gradient: see `Loss.reported`.
        shown = metrics.pop("loss", None)
        if isinstance(shown, Tensor):
            reported = Weighted.of_responses(shown, feedback)
        return Loss(
            loss_U,
            units.share_U,
            units.record_U,
            reported,
            {name: Measured.of(value, feedback) for name, value in metrics.items()},
            {name: _sum_and_weight(value_N, feedback) for name, value_N in observed.items()},
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


def called(objective: Objective) -> str:
    """The name of an objective: that of its file, or of a class that is not ours."""
    package, _, file = type(objective).__module__.rpartition(".")
    return file if package == __name__ else type(objective).__name__


def _sum_and_weight(value_N: Tensor, feedback: Feedback) -> Tensor:
    """(2): a row of weight 3 says as much as three rows."""
    found = Weighted.of_responses(value_N, feedback)
    both = (found.value_M, found.weight_M)
    return torch.stack([some_N.sum(dtype=wide(value_N.device)) for some_N in both])


@runtime_checkable
class Stateful(Protocol):
    """An objective that carries numbers from step to step; they are kept in checkpoints."""

    def start(self) -> dict[str, float]:
        """The state before the first step."""
        ...

    def observe(self, batch: Scored) -> dict[str, Tensor]:
        """Numbers of responses (N), NaN where one has none, whose means, weighted as records are, the
        next state is made of."""
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
