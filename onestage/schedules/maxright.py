"""MAXRIGHT: each step trains on the term with the largest weighted suboptimality.

    i_t = argmax_i lambda_i (f_i - f_i*);  theta <- theta - alpha grad f_{i_t}     (not times lambda)

Fernando et al. 2024 (arXiv 2410.15483), algorithm 3 and its memory-efficient form with period k: a
subgradient step on the weighted Chebyshev function max_i lambda_i (f_i - f_i*). As published
(`decide: same_batch`) the batch that decides is the batch that is trained on, which picks an objective
*because* its batch is hard and moves the point it settles on (xright.md 2.4; `make convex` measures
it); `independent` records (the default) or a running mean (`ema`) do not. As published, too,
a batch that was measured and then not trained on is not seen again; nothing else throws records away.
A tie goes to the term written first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from onestage.schedules import Measure, active, only
from onestage.schedules._suboptimality import Suboptimality

Decide = Literal["ema", "independent", "same_batch"]


@dataclass
class Maxright(Suboptimality):
    decide: Decide = "independent"
    """The loss that decides: `same_batch` as published, of `independent` records, or an `ema` of
    those. Which is best depends on the length of the run: docs/trade-off.md and docs/convex.md."""

    def __post_init__(self) -> None:
        if self.decide != "ema" and self.ema_rate is not None:
            raise ValueError(f"maxright: ema_rate is of decide: ema, not of {self.decide}")
        super().__post_init__()

    @property
    def rate(self) -> float:
        return super().rate if self.decide == "ema" else 1.0

    @property
    def measure(self) -> Measure:
        return "next_batch" if self.decide == "same_batch" else "own_batch"

    def wants(self, step: int) -> Sequence[str]:
        if self.decide != "same_batch":
            return super().wants(step)
        due = step % self.refresh_steps == 0 or not self.values
        return active(self.weights) if due else []

    def weigh(self, step: int) -> dict[str, float]:
        distance = self.suboptimality()
        return only(max(distance, key=lambda term: distance[term]), self.weights)
