"""RACO: a conflict-averse direction that gives no term more than its weight allows.

    g0 = sum_i w_i g_i,   p = argmin over weights of <g_p, g0> + c |g0| |g_p|,   g_p = sum_i p_i g_i
    p~_i = min(p_i, w_i),   g = g0 + c |g0| g_p~ / |g_p~|

Chen, Li, Chen and Lin 2026 (arXiv 2602.02495), CAGrad-Clip: CAGrad (Liu et al. 2021, 2110.14048)
corrects the weighted gradient towards the term that it serves worst, which in many dimensions goes too
far for terms that the user hardly wants; clipped by the weights, the limit points are Pareto-critical
and critical for the weighted loss. `clip: false` is CAGrad with weights. Default c = 0.4.

As with `surgery`, each term goes backward by itself, and a step holds the gradients of all.
"""

from __future__ import annotations

from dataclasses import dataclass

from onestage.schedules import OWN, Schedule, Slopes
from onestage.schedules._few import Row, least, length, met, times


@dataclass
class Raco(Schedule):
    c: float = 0.4
    """Radius of the correction, in lengths of the weighted gradient."""
    clip: bool = True
    """Whether no term gets more of the correction than its weight."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.c < 1:
            raise ValueError(f"raco: c must be in [0, 1), got {self.c}")

    @property
    def combines(self) -> str:
        return OWN

    def weigh(self, step: int) -> dict[str, float]:
        return self.share

    def combine(self, slopes: Slopes) -> dict[str, float]:
        terms, given, rows = met(self.share, slopes.inner)
        radius = self.c * length(rows, given)
        part = self._part(rows, given, radius)
        size = length(rows, part)
        more = radius / size if size > 0 else 0.0
        added = zip(terms, given, part, strict=True)
        return {term: 1 + more * p / w for term, w, p in added}

    def _part(self, rows: list[Row], given: Row, radius: float) -> Row:
        """p~."""
        pull = times(rows, given)

        def worst(p: Row) -> float:
            return sum(a * b for a, b in zip(p, pull, strict=True)) + radius * length(rows, p)

        found = least(worst, len(given))
        return [min(p, w) for p, w in zip(found, given, strict=True)] if self.clip else found
