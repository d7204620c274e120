"""What schedules share that stand around another one: they do as it does, unless they say otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from onestage.schedules import Measure, Schedule, Slopes


class Around(Schedule):
    """A schedule around `inner`; made by a run, never by its name in a recipe."""

    def __init__(self, inner: Schedule, weights: Mapping[str, float] | None = None) -> None:
        super().__init__(weights or inner.weights, inner.steps, inner.seed)
        self.inner = inner

    @property
    def batch(self) -> Literal["mixed", "own"]:
        return self.inner.batch

    @property
    def one_at_a_time(self) -> bool:
        return self.inner.one_at_a_time

    @property
    def combines(self) -> str:
        return self.inner.combines

    @property
    def feels(self) -> bool:
        return self.inner.feels

    @property
    def measure(self) -> Measure:
        return self.inner.measure

    @property
    def measure_fraction(self) -> float:
        return self.inner.measure_fraction

    @property
    def measure_every(self) -> int:
        return self.inner.measure_every

    def wants(self, step: int) -> Sequence[str]:
        return self.inner.wants(step)

    def weigh(self, step: int) -> dict[str, float]:
        return self.inner.weigh(step)

    def observe(self, step: int, losses: Mapping[str, float]) -> None:
        self.inner.observe(step, losses)

    def feel(self, step: int, slopes: Slopes) -> None:
        self.inner.feel(step, slopes)

    def combine(self, slopes: Slopes) -> dict[str, float]:
        return self.inner.combine(slopes)

    def state(self) -> dict[str, Any]:
        return self.inner.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        self.inner.restore(state)
