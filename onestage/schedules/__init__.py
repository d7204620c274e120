"""A schedule decides which terms of the loss are trained on in a step, and how much each weighs.

A term is an objective together with the records it is given. A schedule is arithmetic: it never sees
a model or a tensor, and losses reach it as floats. It is a frozen-looking thing with a small state;
`state()` is kept in checkpoints, and everything else is a function of the step, so that a run that
was killed goes on with the same choices and all processes make the same ones.

Schedules by name.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from onestage.config import Plugins


@dataclass
class Schedule(abc.ABC):
    """The base of all schedules: named weights (lambda), whose scale does not matter."""

    batch: ClassVar[Literal["mixed", "own"]] = "own"
    """`own`: each term of positive weight draws a batch of its own. `mixed`: one batch a step is
    drawn from all streams together, in the proportions of the data."""
    measured_on: ClassVar[Literal["next", "apart"]] = "apart"
    """The records on which the losses that `refresh` asks for are measured: the batch that the term
    would train on `next`, or others drawn `apart` from those trained on."""
    one_at_a_time: ClassVar[bool] = False
    """Whether which single term a step trains is drawn at random, so that clipping each step's
    gradient on its own would change the terms' weights (see `clipping`)."""

    weight: Mapping[str, float]
    """lambda of each term, at least 0, on any scale."""
    steps: int
    """Steps of the whole run."""
    seed: int = 0
    raised: dict[str, float] = field(default_factory=dict, init=False)
    """Factors by which a forgetting guard has raised weights."""

    def __post_init__(self) -> None:
        bad = {t: w for t, w in self.weight.items() if not (math.isfinite(w) and w >= 0)}
        if bad or not sum(self.weight.values()) > 0:
            raise ValueError(
                f"schedule weights must be at least 0 and not all 0, got {dict(self.weight)}"
            )

    @property
    def share(self) -> dict[str, float]:
        """The weights with the guard's factors, scaled to add up to 1."""
        weights = {term: w * self.raised.get(term, 1.0) for term, w in self.weight.items()}
        total = sum(weights.values())
        return {term: w / total for term, w in weights.items()}

    @abc.abstractmethod
    def weights(self, step: int) -> dict[str, float]:
        """Weight of each term's mean loss in the step. A term of weight 0 draws no batch and takes
        no forward pass. The same answer until something is observed."""

    def refresh(self, step: int) -> Sequence[str]:
        """Terms whose losses the schedule wants measured before it decides on the step."""
        return ()

    def observe(self, step: int, losses: Mapping[str, float]) -> None:  # noqa: B027 - most do not
        """Take in losses: those measured before step `step`, and those of its training batches
        (before the update)."""

    def looks(self, steps: int) -> dict[str, int]:
        """The most batches of each term that are measured `apart` in `steps` steps."""
        return {}

    @property
    def measured_part(self) -> float:
        """Size of a batch that is only measured, against one that is trained on."""
        return 1.0

    def draws(self, steps: int) -> dict[str, int]:
        """The most batches each term draws in `steps` steps, where nothing is raised."""
        counts = dict.fromkeys(self.weight, 0)
        for step in range(steps):
            for term, weight in self.weights(step).items():
                counts[term] += weight > 0
        return counts

    def raise_weight(self, term: str, factor: float) -> None:
        """Multiply a term's weight from now on (the forgetting guard's remedy)."""
        self.raised[term] = self.raised.get(term, 1.0) * factor

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: plain data."""
        return {"raised": dict(self.raised)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.raised = dict(state["raised"])


def active(weights: Mapping[str, float]) -> list[str]:
    """The terms that a step trains on."""
    return [term for term, weight in weights.items() if weight > 0]


def only(term: str, terms: Mapping[str, float]) -> dict[str, float]:
    """All of the weight on one term."""
    return {other: float(other == term) for other in terms}


HIDDEN = ("weight", "steps", "seed", "optimum", "raised", "values", "known_at", "best")
"""Fields that are not a recipe's options: what the program knows, and what they carry along."""


PLUGINS = Plugins("schedule", __name__, Schedule, hidden=HIDDEN)  # type: ignore[type-abstract]
names, find = PLUGINS.names, PLUGINS.find


def make(
    given: Any,
    weight: Mapping[str, float],
    steps: int,
    seed: int,
    optimum: Mapping[str, float] | None = None,
) -> Schedule:
    """A schedule with its options checked.

    `optimum`: f* of the terms, for the schedules that look at them.
    """
    known = {"weight": dict(weight), "steps": steps, "seed": seed, "optimum": dict(optimum or {})}
    return PLUGINS.make(given, known)
