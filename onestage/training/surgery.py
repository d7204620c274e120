"""Gradients of several terms, combined by a rule on their inner products (`schedules.surgery`).

The rules are TorchJD's, or a schedule's own (`Schedule.combine`). They see the inner products alone, a
number for each pair of terms; what is combined are the gradients of everything that is trained, wherever
they lie.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from onestage.config import RecipeError
from onestage.models.sharding import full
from onestage.objectives import wide
from onestage.schedules import OWN, Schedule, Slopes

CLASSES = {
    "upgrad": "UPGradWeighting",
    "pcgrad": "PCGradWeighting",
    "mgda": "MGDAWeighting",
    "imtl_g": "IMTLGWeighting",
    "aligned_mtl": "AlignedMTLWeighting",
    "cagrad": "CAGradWeighting",
}
RADIUS = 0.4
"""c of CAGrad, as its authors recommend."""
ADDED = ("pcgrad",)
"""Rules whose weights are of a sum; the others' are of a mean."""


class Surgeon:
    """Takes the terms' gradients off the weights one after another, and puts back what becomes of them.

    `own`: the schedule, where the rule is its own. Raises `RecipeError` where TorchJD, or what a rule
    needs beside it, is not installed.
    """

    def __init__(self, rule: str, own: Schedule | None = None) -> None:
        self.rule, self.own = rule, own
        self._weigh = weighing(rule) if rule != OWN else None
        self._taken: list[list[Tensor | None]] = []
        self._terms: list[tuple[str, float]] = []
        """Names and weights in the step of what was taken."""

    @classmethod
    def of(cls, schedule: Schedule) -> Surgeon | None:
        """What combines gradients as a schedule wants it; None where they are added up."""
        return cls(schedule.combines, schedule) if schedule.combines else None

    def take(self, weights: Sequence[Tensor], term: str = "", given: float = 1.0) -> None:
        """The gradients that lie there are one term's, with the weight that it has in the step."""
        self._taken.append([weight.grad for weight in weights])
        self._terms.append((term, given))
        for weight in weights:
            weight.grad = None

    def put(self, weights: Sequence[Tensor]) -> None:
        """Lay the combination of all that was taken on the weights."""
        taken, self._taken = self._taken, []
        terms, self._terms = self._terms, []
        products = _products(taken)
        own = self.rule == OWN and self.own
        factors = _by(own, products, terms) if own else self.factors(products)
        for place, weight in enumerate(weights):
            parts = [(f, term[place]) for f, term in zip(factors, taken, strict=True)]
            found = [f * gradient for f, gradient in parts if gradient is not None]
            weight.grad = torch.stack(found).sum(0) if found else None

    def factors(self, products: Tensor) -> list[float]:
        """What each term's gradient is multiplied by, from their inner products (m, m)."""
        size = len(products)
        # One that is not finite stays what it is: the step will be refused.
        if size < 2 or not bool(products.isfinite().all()) or not bool(products.any()):
            return [1.0] * size
        scale = 1.0 if self.rule in ADDED else float(size)
        with torch.random.fork_rng(devices=()):
            # PCGrad draws an order: the step's, on every rank, however much dropout has drawn there.
            torch.default_generator.manual_seed(torch.initial_seed())
            assert self._weigh is not None
            return [scale * factor for factor in self._weigh(products).tolist()]


def _by(own: Schedule, products: Tensor, terms: Sequence[tuple[str, float]]) -> list[float]:
    """Factors by a schedule's rule, which knows gradients without their weights."""
    if not bool(products.isfinite().all()) or not bool(products.any()):
        return [1.0] * len(terms)
    rows = products.tolist()
    inner = {
        one: {other: rows[i][j] / (a * b) for j, (other, b) in enumerate(terms)}
        for i, (one, a) in enumerate(terms)
    }
    found = own.combine(Slopes(inner))
    return [found[term] for term, _ in terms]


def weighing(rule: str) -> Callable[[Tensor], Tensor]:
    """A rule of TorchJD as a function of inner products."""
    try:
        from torchjd import aggregation
    except ImportError as error:
        raise RecipeError(
            "schedule surgery: combines gradients by TorchJD, which is not installed: pip install "
            "'onestage[gradients]'"
        ) from error
    kind: Any = getattr(aggregation, CLASSES[rule])
    try:
        found: Callable[[Tensor], Tensor] = kind(c=RADIUS) if rule == "cagrad" else kind()
    except ImportError as error:
        raise RecipeError(
            f"schedule surgery: rule {rule}: {' '.join(str(error).split())}"
        ) from error
    return found


def _products(terms: Sequence[Sequence[Tensor | None]]) -> Tensor:
    """Inner products (m, m, float64) of the gradients of m terms."""
    found = torch.zeros(len(terms), len(terms), dtype=torch.float64)
    for i, left in enumerate(terms):
        for j, right in enumerate(terms[: i + 1]):
            both = [
                (a, b) for a, b in zip(left, right, strict=True) if a is not None and b is not None
            ]
            if both:  # put together where they lie, and read once
                parts = torch.stack([full((a.float() * b.float()).sum()) for a, b in both])
                found[i, j] = found[j, i] = parts.sum(dtype=wide(parts.device)).item()
    return found
