"""Weights drawn back on the line to where they started, until what they may forget is kept again.

    w <- w_start + part (w - w_start),    0 <= part < 1

At part = 0 stands the start model, which keeps every bound above 0, and on the way there KL and losses
are continuous: so a bound can always be met, whatever the gradients of what holds it are worth on
records that they have not seen. It is interpolation in weights (WiSE-FT, Wortsman et al. 2022, arXiv
2109.01903) as the projection of a step on a constraint, as often as there is a measurement.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

STEEP = 3.0
"""At first: a KL grows along the line with this power of the part. It is 2 near the start; of models
that were held near it on other records of a text, 2.1 to 4.2 were found in the lab."""
LEAST, MOST = 2.0, 5.0
NEAR, TRIES, EXACT = 0.02, 12, 4
"""It is drawn back to this part of a bound above it at most, in so many pieces at most, of which so many
are reckoned by that power."""


NEARER = 0.9
"""The part of the way at which a price is measured."""


class Line:
    """Of some weights, by name: where they were when this was made."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.weights = dict(weights)
        self.start = {name: weight.detach().clone() for name, weight in weights.items()}

    def start_of(self) -> dict[int, Tensor]:
        """Where each weight was, by its identity."""
        return {id(weight): self.start[name] for name, weight in self.weights.items()}

    @torch.no_grad()
    def draw(self, part: float, weights: Mapping[str, Tensor] | None = None) -> None:
        """Leave this part of the way; of these weights or, by default, those that it was made of."""
        weights = self.weights if weights is None else weights
        for name, start in self.start.items():
            weights[name].lerp_(start.to(weights[name].dtype), 1 - part)


Measured = tuple[float, Mapping[str, float]]
"""The goals' loss, and what each bound measures."""


def prices(
    line: Line, weights: Mapping[str, Tensor], measure: Callable[[], Measured]
) -> dict[str, float]:
    """What each bound is worth: by how much the goals' loss is higher a little nearer to the start, for
    one of what the bound measures less there. Left out where that does not fall. The weights are put
    back, bit for bit.

    Along the line alone: a run that had been trained under a wider bound may have used it better.
    """
    goal, now = measure()
    kept = {name: weights[name].detach().clone() for name in line.start}
    line.draw(NEARER, weights)
    lost, less = measure()
    with torch.no_grad():
        for name, weight in kept.items():
            weights[name].copy_(weight)
    return {name: (lost - goal) / (x - less[name]) for name, x in now.items() if x > less[name]}


@dataclass
class Drawing:
    """How far weights must go back, which is learned from how far they did."""

    steep: float = STEEP

    def until(
        self, over: float, draw: Callable[[float], None], again: Callable[[], float]
    ) -> float:
        """Draw weights back until nothing is over its bound; returns which part of the way is left.

        over: how much the worst measure is, as a part of its bound; `again` measures that anew.
        """
        left = 1.0
        for turn in range(TRIES):
            if not over > 1 + NEAR:  # nor is there anything to do about what is no number
                break
            # A line may lead over a hill before it comes down to the start: then by halves.
            part = min(over ** (-1 / self.steep), 1.0 if turn < EXACT else 0.5)
            draw(part)
            left, before, over = left * part, over, again()
            if over > 0 and math.isfinite(before):
                self.steep = min(MOST, max(LEAST, math.log(over / before) / math.log(part)))
        return left
