"""How much of a run's time goes into looking at it: a share, by the pace that is measured.

With T seconds of training expected, evaluations may take E with E / (T + E) <= share.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

FIRST = 5
"""Evaluations that a run should have room for, the first and the last among them."""
MOST = 50
"""Evaluations at most where nobody says how often."""


@dataclass
class Pace:
    """What was spent, and what may be."""

    share: float
    steps: int
    """That the run is expected to have."""
    guess: float = 0.0
    """Seconds that a step is thought to take, until some were measured."""
    spent: float = 0.0
    """Seconds of evaluations."""
    trained: float = 0.0
    """Seconds of all else, since the first step."""
    done: int = 0
    """Steps in these."""
    last: float = 0.0
    """Seconds that an evaluation takes, by the last one."""

    @property
    def whole(self) -> float:
        """Seconds that all steps are expected to take, without evaluations."""
        return self.steps * (self.trained / self.done if self.done else self.guess)

    @property
    def allowed(self) -> float:
        """Seconds that all evaluations together may take."""
        return self.whole * self.share / (1 - self.share)

    @property
    def room(self) -> float:
        """Seconds that are left of these."""
        return self.allowed - self.spent

    @property
    def used(self) -> float:
        """The share of the run's time that evaluations have taken so far."""
        total = self.spent + self.trained
        return self.spent / total if total else 0.0

    def next(self, step: int, every: int | None) -> int:
        """The step at which to evaluate next: what is left of the share is spread over what is left of
        the run, and its end has a part. every: only at its multiples, and not more often."""
        left = self.steps - step
        affordable = int(self.room // self.last) if self.last > 0 else left
        if affordable <= 1:
            return self.steps
        gap = max(math.ceil(left / affordable), every or math.ceil(self.steps / MOST))
        at = math.ceil((step + gap) / every) * every if every else step + gap
        # One shortly before the end would take the end's part.
        return at if at <= self.steps - gap / 2 else self.steps

    def add(self, seconds: float, again: float | None = None) -> None:
        """An evaluation was made. again: what the next one will take, if it is another number."""
        self.spent, self.last = self.spent + seconds, seconds if again is None else again

    def state(self) -> dict[str, Any]:
        return asdict(self)

    def restore(self, state: dict[str, Any]) -> None:
        """What was spent and measured; share and steps are as the recipe has them now."""
        for name in ("guess", "spent", "trained", "done", "last"):
            setattr(self, name, state[name])
