"""What schedules share that balance terms by how large their losses are and how they move.

All terms of positive weight are trained in every step, so their losses are known for free. A loss is
taken above its f* (which is 0 where it is not told), since a logarithm or a ratio is of something
positive: what lies below is counted as `FLOOR`. A loss that the records gave nothing to is passed by.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onestage.schedules import Schedule, active
from onestage.schedules._suboptimality import check_optimum

FLOOR = 1e-3
"""The least that a loss stands above its f*, in nats."""


@dataclass
class Balancing(Schedule):
    """Keeps what a term's loss was last; a schedule says what it does with it."""

    optimum: Mapping[str, float] = field(default_factory=dict)
    """f* of each term; 0 where not given."""
    above: dict[str, float] = field(default_factory=dict, init=False)
    """f_i - f_i* of each term as last known, at least `FLOOR`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_optimum(self.optimum, self.weights)

    def taken_in(self, losses: Mapping[str, float]) -> dict[str, float]:
        """The losses above f* of the terms that have one now."""
        return {
            term: max(FLOOR, loss - self.optimum.get(term, 0.0))
            for term, loss in losses.items()
            if term in active(self.weights) and math.isfinite(loss)
        }

    def scaled(self, pull: Mapping[str, float]) -> dict[str, float]:
        """The given weights times these factors, scaled to add up to 1; terms of weight 0 stay out."""
        found = {term: part * pull[term] if part else 0.0 for term, part in self.share.items()}
        total = sum(found.values())
        return {term: weight / total for term, weight in found.items()}

    def state(self) -> dict[str, Any]:
        return {"above": dict(self.above)}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.above = dict(state["above"])
