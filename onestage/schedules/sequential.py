"""Sequential: one term after the other, with the same adapter and optimiser state throughout.

Fernando et al. 2024 (arXiv 2410.15483), algorithm 1, in the form that xright.md T19 asks for: their
stages take a fresh adapter and a fresh Adam each, which is `stages:` here. Term i gets the part
lambda_i of the steps, in the order given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onestage.config import nearest
from onestage.schedules import Schedule, only


@dataclass
class Sequential(Schedule):
    order: list[str] | None = None
    """The terms, first to last; default: as the weights are written."""

    def __post_init__(self) -> None:
        super().__post_init__()
        terms = list(self.weights)
        if self.order is not None and terms and sorted(self.order) != sorted(terms):
            odd = [term for term in self.order if term not in terms]
            hint = nearest(odd[0], terms) if odd else ""
            raise ValueError(f"sequential: order {self.order} must name each of {terms} once{hint}")

    def weigh(self, step: int) -> dict[str, float]:
        order, share = self.order or list(self.weights), self.share
        before = 0.0
        for term in order:
            before += share[term]
            if step < round(before * self.steps):
                return only(term, self.weights)
        return only([term for term in order if share[term]][-1], self.weights)

    def reweigh(self, weights: Mapping[str, float]) -> None:
        raise ValueError("sequential trains one term after the other: no weight can be raised")
