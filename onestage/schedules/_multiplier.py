"""The multiplier of a constraint, found while training: dual ascent with a PI step on its logarithm.

    minimise goal(theta)  subject to  x(theta) <= bound
    e_k = clip((x_k - aim) / scale, -1, 1),          x_k a running mean of measurements
    s_k = s_(k-1) + integral e_k,    log mu_k = s_k + proportional e_k,    nu_k = mu_k / scale

nu is the weight of x beside the goal: at the optimum it is the price of the bound, -d goal*/d bound. A
constant step on nu itself (plain dual ascent) must know how large nu will be, overshoots, and ends in
switching on and off; Stooke et al. 2020 (arXiv 2007.03964) add the proportional part, by which the
oscillation is damped. The step is on the logarithm here (an exponentiated gradient), because then its
size need not be known: while a model is near its start, KL grows with the square of how far it is
moved and the goal with the distance, so that log x = const - 2 log nu, a plant of known gain; and
mu* is half of what the goal gains, some tenths of a nat in most runs, whatever the bound is.

Errors are clipped, so no measurement moves the weight by more than a known factor; the integral stands
where the output is at its border (anti-windup); and it falls more slowly than it rises, since before a
run has used up its bound, slack says little about the price.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

FIRST, LEAST, MOST = 0.05, 1e-4, 10.0
"""mu at the start, at least and at most: what the whole bound is worth, in nats of the goal."""
FALL = 0.5
"""The integral's gain where there is slack, against that where there is none."""
PATIENCE = 5
"""Measurements at the greatest weight after which the bound is given up."""


@dataclass
class Multiplier:
    """Of one constraint `x <= bound`. Raises `ValueError` for numbers that mean nothing."""

    bound: float
    scale: float = 0.0
    """What counts as one whole bound; 0: its absolute value, or .01 where that is 0."""
    margin: float = 0.1
    """It aims this part of the scale below the bound, since what it measures is a sample; or as far
    below as it is told with what is measured."""
    proportional: float = 1.0
    integral: float = 0.2
    smooth: float = 0.5
    """How much a measurement counts against those before; 1 replaces them."""
    first: float = FIRST
    """mu at the start."""
    held: float | None = None
    """A weight nu that stays as it is: what a controller is compared with."""
    asked: float = field(default=0.0, init=False)
    """The bound as it was given; `bound` may be relaxed."""
    mean: float | None = field(default=None, init=False)
    """The smoothed measurement."""
    room: float | None = field(default=None, init=False)
    """How far below the bound it aims, smoothed, where it was told."""
    level: float = field(default=0.0, init=False)
    """The integral, of log mu."""
    error: float = field(default=0.0, init=False)
    """As last seen, clipped."""
    stuck: int = field(default=0, init=False)
    """Measurements in a row that broke the bound at the greatest weight."""

    def __post_init__(self) -> None:
        self.asked, self.scale = self.bound, self.scale or abs(self.bound) or 0.01
        numbers = (self.scale, self.proportional, self.integral, self.first)
        if not all(math.isfinite(n) and n > 0 for n in numbers) or not math.isfinite(self.bound):
            raise ValueError(
                "a bound is a finite number, and scale, proportional, integral and first are above 0, "
                f"got {self.bound} and {numbers}"
            )
        if not (0 < self.smooth <= 1 and 0 <= self.margin < 1):
            raise ValueError(
                f"smooth must lie in (0, 1] and margin in [0, 1), got {self.smooth} and {self.margin}"
            )
        if self.held is not None and not (math.isfinite(self.held) and self.held >= 0):
            raise ValueError(f"a weight is a finite number of at least 0, got {self.held}")
        self.level = math.log(self.first)

    @property
    def ahead(self) -> float:
        """How far below the bound it aims."""
        return self.margin * self.scale if self.room is None else self.room

    @property
    def aim(self) -> float:
        """What x is held at while the bound binds."""
        return self.bound - self.ahead

    @property
    def worth(self) -> float:
        """mu: what the whole bound is worth."""
        if self.held is not None:
            return self.held * self.scale
        return math.exp(self._clamped(self.level + self.proportional * self.error))

    @property
    def weight(self) -> float:
        """nu: of x beside the goal; none at all where mu is at its least."""
        if self.held is not None:
            return self.held
        return self.worth / self.scale if self.worth > 1.001 * LEAST else 0.0

    @property
    def slack(self) -> float:
        """How far the smoothed measurement stands below the bound; negative where it breaks it."""
        return self.bound - (self.mean if self.mean is not None else math.nan)

    @property
    def lost(self) -> bool:
        """Whether no weight that is allowed held the bound."""
        return self.stuck >= PATIENCE

    def observe(self, value: float, room: float | None = None) -> None:
        """Take in a measurement of x. One that is no number counts as far too much.

        room: how far below the bound to aim, by how much samples like this one differ.
        """
        if math.isfinite(value):
            self.mean = self._smoothed(self.mean, value)
            self.room = self.room if room is None else self._smoothed(self.room, room)
            self.error = min(1.0, max(-1.0, (self.mean - self.aim) / self.scale))
        else:
            self.error = 1.0
        rate = self.integral if self.error > 0 else FALL * self.integral
        moved = self.level + rate * self.error
        # Anti-windup: what the output cannot follow is not added up.
        self.level = self._clamped(moved)
        broken = self.mean is None or self.mean > self.bound
        greatest = self.held is None and self.worth >= MOST
        self.stuck = self.stuck + 1 if broken and greatest else 0

    def drew(self, value: float) -> None:
        """The model was drawn back since the last measurement, to where x is `value`: it goes on from
        there. What it took to hold the bound is in the multiplier already. A value that is no number
        says nothing."""
        self.mean, self.stuck = value if math.isfinite(value) else self.mean, 0

    def relax(self) -> float:
        """Give way to what is there: the bound is moved so that it just holds; returns it."""
        if self.mean is not None and self.mean > self.aim:
            self.bound = self.mean + self.ahead
        self.stuck = 0
        return self.bound

    def _smoothed(self, before: float | None, value: float) -> float:
        return value if before is None else before + self.smooth * (value - before)

    def _clamped(self, log: float) -> float:
        return min(math.log(MOST), max(math.log(LEAST), log))

    def state(self) -> dict[str, Any]:
        return {
            "asked": self.asked,
            "bound": self.bound,
            "mean": self.mean,
            "room": self.room,
            "level": self.level,
            "error": self.error,
            "stuck": self.stuck,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; a bound that is another one by now is held from here on as it is given."""
        same = state.get("asked", self.asked) == self.asked
        for name in ("mean", "level", "error", *(("bound", "stuck") if same else ())):
            setattr(self, name, state[name])
        self.room = state.get("room")  # none in checkpoints of before it was told
