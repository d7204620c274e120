"""A schedule decides which terms of the loss are trained on in a step, and how much each weighs.

A term is an objective together with the records it is given. A schedule is arithmetic: it never sees
a model or a tensor, and losses reach it as floats. Before a step it may want some of them measured
(`wants`), then it weighs the terms (`weigh`), and afterwards it is told the losses of what was trained
on (`observe`). Its small `state()` is kept in checkpoints, and everything else is a function of the
step, so that a run that was killed goes on with the same choices and all processes make the same ones.

One file of this folder is one schedule, a dataclass of its options; `onestage.schedules.Maxright` and
the others are found here by their classes' names, too. `onestage.testing.check_schedule` tries a new
one on the laws that all of them keep.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Self

from onestage.config import Plugins

Measure = Literal["never", "next_batch", "own_batch"]

OWN = "own"
"""What `Schedule.combines` says where the schedule itself combines gradients (`Schedule.combine`)."""


@dataclass(frozen=True)
class Slopes:
    """What is known in a step of the gradients of the terms' mean losses, each without its weight."""

    inner: Mapping[str, Mapping[str, float]]
    """Their inner products, by term and term."""
    noise: Mapping[str, float] = field(default_factory=dict)
    """E |g - E g|^2 over batches like this one, where it is known."""


@dataclass
class Schedule(abc.ABC):
    """The contract. A user gives `weights` and options; the program fills in the other fields.

    What is a property here is a plain attribute of most schedules (`measure = "own_batch"` in the
    class), and a property of those where it depends on an option.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    """lambda of each term, at least 0, on any scale; where left out, all terms weigh alike."""
    steps: int = 0
    """Of the whole run."""
    seed: int = 0
    """Of the run: what is drawn at random must be a function of it and of the step."""

    def __post_init__(self) -> None:
        bad = [w for w in self.weights.values() if not (math.isfinite(w) and w >= 0)]
        if bad or (self.weights and not sum(self.weights.values()) > 0):
            raise ValueError(
                f"schedule weights must be at least 0 and not all 0, got {dict(self.weights)}"
            )

    def for_run(
        self,
        weights: Mapping[str, float],
        steps: int,
        seed: int,
        optimum: Mapping[str, float] | None = None,
    ) -> Self:
        """A run's own copy, with nothing observed yet.

        `optimum`: f* of the terms, for the schedules that have that field. Raises `ValueError` where
        options and terms do not fit.
        """
        given = {term: float(weight) for term, weight in weights.items()}
        known: dict[str, Any] = {"weights": given, "steps": steps, "seed": seed}
        if "optimum" in {one.name for one in fields(self)}:
            known["optimum"] = dict(optimum or {})
        return replace(self, **known)

    @property
    def batch(self) -> Literal["mixed", "own"]:
        """`own`: each term of positive weight draws a batch of its own. `mixed`: one batch a step is
        drawn from all streams together, in the proportions of the data, which are the weights. There
        the loop scales what `weigh` says by how much of each term a batch holds against its part on
        average, so that it holds over the steps: a batch may have few records of a term, or none."""
        return "own"

    @property
    def one_at_a_time(self) -> bool:
        """Whether which single term a step trains is drawn at random, so that clipping each step's
        gradient on its own would change the terms' weights (see `training.optimizer.Clipping`)."""
        return False

    @property
    def combines(self) -> str:
        """The rule by which the terms' gradients are combined, each going backward by itself
        (`training.surgery`); `OWN`: that of `combine`; none where they are added up."""
        return ""

    @property
    def feels(self) -> bool:
        """Whether it is told of the terms' gradients (`feel`); only where a gauge can be read, and every
        term has two records a step, whose halves say how noisy it is."""
        return False

    @property
    def measure(self) -> Measure:
        """The records on which the losses that it `wants` are measured: the batch that the term would
        train on next, which is not drawn again where the term is not trained on after all, or a batch
        of its own, drawn apart from those trained on."""
        return "never"

    @property
    def measure_fraction(self) -> float:
        """Size of an `own_batch`, against one that is trained on."""
        return 1.0

    @property
    def measure_every(self) -> int:
        """A term is wanted at most once in so many steps. (What will be measured is known before the
        run, so that the reference's log-probabilities of it can be computed.)"""
        return 1

    @property
    def share(self) -> dict[str, float]:
        """The weights, scaled to add up to 1."""
        total = sum(self.weights.values())
        return {term: w / total for term, w in self.weights.items()}

    def wants(self, step: int) -> Sequence[str]:
        """Terms whose losses it wants measured before it weighs the terms of a step."""
        return ()

    @abc.abstractmethod
    def weigh(self, step: int) -> dict[str, float]:
        """Weight of each term's mean loss in a step (from 0). A term of weight 0 draws no batch and
        takes no forward pass. The same answer until something is observed."""

    def observe(self, step: int, losses: Mapping[str, float]) -> None:  # noqa: B027 - most do not
        """Take in mean losses by term: those it wanted before a step, NaN where the records gave the
        objective nothing to do, and those of the step's training batches, before the update."""

    def feel(self, step: int, slopes: Slopes) -> None:  # noqa: B027 - most do not
        """Take in what a gauge says of the gradients of a step's terms, after it. (`training.gauges`:
        of a sketch of them, up to a common factor.)"""

    def combine(self, slopes: Slopes) -> dict[str, float]:
        """Of `combines: OWN`: what each term's weighted gradient is multiplied by before they are added
        up."""
        raise NotImplementedError

    def reweigh(self, weights: Mapping[str, float]) -> None:
        """Go on with other weights (a guard raises one); `ValueError` where that has no meaning."""
        self.weights = weights

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: plain data."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:  # noqa: B027 - most have none
        """Go on from a state."""


def active(weights: Mapping[str, float]) -> list[str]:
    """The terms that a step trains on."""
    return [term for term, weight in weights.items() if weight > 0]


def only(term: str, terms: Mapping[str, float]) -> dict[str, float]:
    """All of the weight on one term."""
    return {other: float(other == term) for other in terms}


PLUGINS = Plugins("schedule", __name__, Schedule, hidden=("steps", "seed", "optimum"))  # type: ignore[type-abstract]
names, find, make = PLUGINS.names, PLUGINS.find, PLUGINS.make


def __getattr__(name: str) -> Any:
    """`onestage.schedules.Maxright`: the file is read when the class is asked for."""
    return PLUGINS.by_class(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *(find(name).__name__ for name in PLUGINS.built_in())})
