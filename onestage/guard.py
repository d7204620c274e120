"""The forgetting guard: thresholds on what the probe measures, and what happens above them.

Lower training losses are not a better model: retained knowledge can fall while every objective of a
run improves (lab.md B), and no objective sees it. A guard does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from onestage.nearest import nearest
from onestage.schedules.contract import Schedule


@dataclass(frozen=True)
class Guard:
    measure: str
    """Name of the measurement."""
    above: float
    then: Literal["warn", "stop", "raise"]
    term: str | None = None
    factor: float = 2.0

    def check(self, known: Sequence[str], schedule: Schedule) -> None:
        """Raise `ValueError` where it could never act: before the first step."""
        if self.measure not in known:
            raise ValueError(
                f"guard: nothing measures {self.measure!r}{nearest(self.measure, list(known))}"
            )
        if self.term is None:
            return
        if self.term not in schedule.weight:
            terms = list(schedule.weight)
            raise ValueError(f"guard: no term {self.term!r} to raise{nearest(self.term, terms)}")
        if not schedule.weight[self.term] > 0:
            raise ValueError(f"guard: the weight of {self.term} is 0, which no factor raises")
        try:
            schedule.raise_weight(self.term, 1.0)
        except ValueError as error:
            raise ValueError(f"guard: {error}") from error


def act(
    guards: Sequence[Guard],
    measured: Mapping[str, float],
    schedule: Schedule,
    say: Callable[[str], None],
) -> bool:
    """Do what the guards say about a probe's measurements; returns whether the run must stop."""
    stop = False
    for guard in guards:
        value = measured[guard.measure]
        if not value > guard.above:
            continue
        told = f"guard: {guard.measure} is {value:.4g}, above {guard.above:.4g}"
        if guard.then == "raise" and guard.term is not None:
            schedule.raise_weight(guard.term, guard.factor)
            told += f"; the weight of {guard.term} is now {schedule.share[guard.term]:.3f}"
        elif guard.then == "stop":
            told += "; the run stops here"
            stop = True
        say(told)
    return stop
