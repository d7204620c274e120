"""What MAXRIGHT and its smooth form share: how far each term is from its best, and how it is known.

    s_i = lambda_i (f_i - f_i*)

A term's loss is renewed for free whenever it is trained on, and measured by a forward pass once it is
`refresh_steps` old. f_i* is given or measured by runs of one objective, and then stands; where it is
not known it is 0, and lowered should a loss fall below that. (An f* that noisy losses may lower creeps
away from the best: `make convex` measures what that does.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onestage.config import nearest
from onestage.schedules import Measure, Schedule, active

EMA_RATE = 0.05
"""About twenty steps of memory: the best of .2, .1 and .05 on the convex bench (docs/convex.md)."""


def check_optimum(optimum: Mapping[str, float], weights: Mapping[str, float]) -> None:
    """Raise `ValueError` for an f* of no term; where the terms are not known yet, none is."""
    for term in optimum:
        if weights and term not in weights:
            raise ValueError(
                f"schedule: optimum of unknown term {term!r}{nearest(term, list(weights))}"
            )


@dataclass
class Suboptimality(Schedule):
    """Keeps the losses; a schedule that decides by them turns them into weights."""

    optimum: Mapping[str, float] = field(default_factory=dict)
    """f* of each term; 0 where not given."""
    refresh_steps: int = 10
    """No loss that decides is older than this many steps (k of the paper, over the whole run)."""
    refresh_part: float = 0.25
    """Records that a loss is measured on, as a part of a batch."""
    ema_rate: float | None = None
    """How much a new loss counts against those before, for each step that lies between; 1 replaces."""
    values: dict[str, float] = field(default_factory=dict, init=False)
    """f_i as last known."""
    known_at: dict[str, int] = field(default_factory=dict, init=False)
    """The step of that."""
    best: dict[str, float] = field(default_factory=dict, init=False)
    """f_i* as it stands."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.refresh_steps < 1:
            raise ValueError(
                f"schedule: refresh_steps must be at least 1, got {self.refresh_steps}"
            )
        if not 0 < self.rate <= 1:
            raise ValueError(f"schedule: ema_rate must lie in (0, 1], got {self.ema_rate}")
        if not 0 < self.refresh_part <= 1:
            raise ValueError(f"schedule: refresh_part must lie in (0, 1], got {self.refresh_part}")
        check_optimum(self.optimum, self.weights)
        self.best = {term: float(self.optimum.get(term, 0.0)) for term in self.weights}

    @property
    def rate(self) -> float:
        """`ema_rate`, or the default."""
        return EMA_RATE if self.ema_rate is None else self.ema_rate

    @property
    def measure(self) -> Measure:
        return "own_batch"

    @property
    def measure_fraction(self) -> float:
        return self.refresh_part if self.measure == "own_batch" else 1.0

    @property
    def measure_every(self) -> int:
        return self.refresh_steps

    def wants(self, step: int) -> Sequence[str]:
        oldest = step - self.refresh_steps
        return [term for term in active(self.weights) if self.known_at.get(term, oldest) <= oldest]

    def observe(self, step: int, losses: Mapping[str, float]) -> None:
        for term, loss in losses.items():
            if math.isnan(loss):  # measured on records that give this objective nothing to do
                self.known_at[term] = step
                continue
            if term in self.values:
                # As if this loss had been seen in every step since the last one.
                gone = max(1, step - self.known_at[term])
                rate = 1 - (1 - self.rate) ** gone
                loss = self.values[term] + rate * (loss - self.values[term])
            self.values[term], self.known_at[term] = loss, step
            if term not in self.optimum:
                self.best[term] = min(self.best[term], loss)

    def suboptimality(self) -> dict[str, float]:
        """lambda_i (f_i - f_i*) of every term with a weight; below 0 where f* was given too high."""
        return {
            term: part * (self.values.get(term, self.best[term]) - self.best[term])
            for term, part in self.share.items()
            if part
        }

    def state(self) -> dict[str, Any]:
        return {
            "values": dict(self.values),
            "known_at": dict(self.known_at),
            "best": dict(self.best),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.values, self.known_at = dict(state["values"]), dict(state["known_at"])
        self.best = dict(state["best"])
