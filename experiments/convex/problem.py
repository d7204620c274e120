"""Two convex problems with two objectives each, small enough that every optimum is known.

A linear softmax policy pi(y|x) ~ exp(theta . phi(x, y)) with two answers a prompt makes both losses
logistic (xright.md 2.2): DPO's log-partition cancels, f1 = E sp(-beta theta . (phi_w - phi_l)), and
SFT's is f2 = E sp(-theta . (phi_y* - phi_y)), sp = softplus. Theta is a box [-R, R]^D.

An objective is a handful of cells c, each a signed feature difference z_c with a probability q_c:

    f(theta) = scale * sum_c q_c sp(-z_c . theta)

A batch is a multinomial draw of frequencies over the cells: its loss and gradient are those of the
objective with the frequencies in place of q, so every batch size costs the same. Shapes: S seeds,
C cells, D dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
TERMS = ("dpo", "sft")
"""Names of objectives 1 and 2; lambda weighs the first."""


def softplus(x: Floats) -> Floats:
    """log(1 + e^x) without overflow."""
    return np.logaddexp(0.0, x)


def sigmoid(x: Floats) -> Floats:
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def entropy(p: float) -> float:
    """Binary entropy in nats."""
    return -sum(part * math.log(part) for part in (p, 1.0 - p) if part)


@dataclass(frozen=True)
class Objective:
    """A logistic loss over cells."""

    cells_CD: Floats
    """Signed feature difference (times beta) of each kind of record."""
    odds_C: Floats
    """How often each is drawn; adds up to 1."""
    scale: float = 1.0

    def loss(self, theta: Floats, often: Floats | None = None) -> Floats:
        """Of points (..., D), with the batch's frequencies (..., C) or exactly."""
        weight = self.odds_C if often is None else often
        return self.scale * (weight * softplus(-theta @ self.cells_CD.T)).sum(-1)

    def gradient(self, theta: Floats, often: Floats | None = None) -> Floats:
        weight = self.odds_C if often is None else often
        pull = weight * sigmoid(-theta @ self.cells_CD.T)
        return -self.scale * pull @ self.cells_CD

    def hessian(self, theta: Floats) -> Floats:
        """Of one point (D,)."""
        p = sigmoid(self.cells_CD @ theta)
        weight = self.odds_C * p * (1 - p)
        return self.scale * (self.cells_CD.T * weight) @ self.cells_CD

    def smoothness(self) -> float:
        """L: the largest eigenvalue of a Hessian, bounded by p (1 - p) <= 1/4 and reached at 0."""
        return float(np.linalg.eigvalsh(self.hessian(np.zeros(self.cells_CD.shape[1])))[-1])

    def draw(self, rng: np.random.Generator, batch: int, size: tuple[int, ...]) -> Floats:
        """Frequencies (*size, C) of batches."""
        if batch == 1:  # ten times as fast as a multinomial of one trial
            which = np.searchsorted(np.cumsum(self.odds_C)[:-1], rng.random(size), side="right")
            return np.eye(len(self.odds_C))[which]
        return rng.multinomial(batch, self.odds_C, size=size) / batch


@dataclass(frozen=True)
class Problem:
    """Two objectives over a box. lambda is the weight of the first."""

    first: Objective
    second: Objective
    radius: float

    @property
    def dimensions(self) -> int:
        return self.first.cells_CD.shape[1]

    @property
    def objectives(self) -> tuple[Objective, Objective]:
        return self.first, self.second

    def project(self, theta: Floats) -> Floats:
        return np.minimum(np.maximum(theta, -self.radius), self.radius)

    def mixture(self, theta: Floats, lam: float) -> Floats:
        """F_lambda."""
        return lam * self.first.loss(theta) + (1 - lam) * self.second.loss(theta)

    def argmin(self, lam: float) -> Floats:
        """argmin F_lambda by projected Newton steps from 0, halved until they descend."""
        theta = np.zeros(self.dimensions)
        for _ in range(200):
            slope = lam * self.first.gradient(theta) + (1 - lam) * self.second.gradient(theta)
            curve = lam * self.first.hessian(theta) + (1 - lam) * self.second.hessian(theta)
            step, size = np.linalg.solve(curve + 1e-12 * np.eye(len(theta)), slope), 1.0
            now = float(self.mixture(theta, lam))
            while float(self.mixture(self.project(theta - size * step), lam)) > now and size > 1e-9:
                size /= 2
            new = self.project(theta - size * step)
            if np.abs(new - theta).max() < 1e-13:
                break
            theta = new
        return theta

    @cached_property
    def optima(self) -> tuple[float, float]:
        """f1*, f2*."""
        return float(self.first.loss(self.argmin(1.0))), float(self.second.loss(self.argmin(0.0)))

    def gap(self, theta: Floats, lam: float) -> Floats:
        """G_lambda = F_lambda - min F_lambda."""
        return self.mixture(theta, lam) - self.mixture(self.argmin(lam), lam)

    def gaps(self, theta: Floats) -> tuple[Floats, Floats]:
        """(f1 - f1*, f2 - f2*)."""
        best1, best2 = self.optima
        return self.first.loss(theta) - best1, self.second.loss(theta) - best2

    def ideal_distance(self, theta: Floats) -> Floats:
        return np.hypot(*self.gaps(theta))

    def chebyshev(self, lam: float) -> tuple[Floats, float]:
        """argmin max{lambda (f1 - f1*), (1-lambda)(f2 - f2*)}, and mu.

        The point is argmin F_mu for the mu at which both are equal; mu is the share of DPO steps of
        a MAXRIGHT that stands there, since its steps are not weighted.
        """
        return self._balance(lambda gap1, gap2, mu: lam * gap1 - (1 - lam) * gap2)

    def smooth_chebyshev(self, lam: float, tau: float) -> tuple[Floats, float]:
        """argmin tau log(exp(lambda (f1 - f1*) / tau) + exp((1-lambda)(f2 - f2*) / tau)), and mu.

        Stationary where mu : 1 - mu are the log-sum-exp's own weights of f1 and f2.
        """
        prior = math.log(lam / (1 - lam))
        return self._balance(
            lambda gap1, gap2, mu: (
                prior + (lam * gap1 - (1 - lam) * gap2) / tau - math.log(mu / (1 - mu))
            )
        )

    def _balance(self, excess: Callable[[float, float, float], float]) -> tuple[Floats, float]:
        """The argmin F_mu at which `excess` of (gap1, gap2, mu) is 0: bisection, as it falls in mu
        (a larger mu makes f1 smaller and f2 larger)."""
        low, high = 0.0, 1.0
        for _ in range(45):
            mu = (low + high) / 2
            gap1, gap2 = self.gaps(self.argmin(mu))
            low, high = (mu, high) if excess(float(gap1), float(gap2), mu) > 0 else (low, mu)
        return self.argmin(mu), mu

    def forgetting(self, lam: float, kept: int) -> tuple[float, float, float]:
        """Gap of a sequential run whose last stage reaches the optimum of objective `kept` (0 or 1),
        with its lower and upper bounds (xright.md 2.2, fact 4): (lower, gap, upper)."""
        weight = (lam, 1 - lam)[1 - kept]
        forgotten = self.objectives[1 - kept]
        end = self.argmin(1.0 - kept)
        slope = forgotten.gradient(end)
        smooth = lam * self.first.smoothness() + (1 - lam) * self.second.smoothness()
        lower = weight**2 * float(slope @ slope) / (2 * smooth)
        upper = weight * (float(forgotten.loss(end)) - self.optima[1 - kept])
        return lower, float(self.gap(end, lam)), upper


def both_answers(features: list[list[float]], first: list[float], scale: float = 1.0) -> Objective:
    """Equally likely prompts; the first answer is the better one with the given probability."""
    difference, odds = np.array(features, dtype=float), np.array(first) / len(first)
    cells = np.concatenate([difference, -difference])
    return Objective(cells, np.concatenate([odds, 1 / len(first) - odds]), scale)


def construction_a(radius: float = 2.0) -> Problem:
    """1-D: f1 = log(1 + e^-theta), f2 = log(1 + e^theta) (xright.md 2.3). A sequential run lands on
    the border of the box and stays there, however long it is."""
    one = np.ones(1)
    return Problem(Objective(np.array([[1.0]]), one), Objective(np.array([[-1.0]]), one), radius)


def gap_a(radius: float, lam: float) -> tuple[float, float]:
    """Closed form of construction A's gaps: (DPO then SFT, SFT then DPO)."""
    rest = math.log1p(math.exp(-radius)) - entropy(lam)
    return lam * radius + rest, (1 - lam) * radius + rest


def steps_a(radius: float, scale: float) -> float:
    """Steps a stage of size scale/sqrt T needs to reach the border from anywhere."""
    return (2 * radius * (1 + math.exp(radius)) / scale) ** 2


BETA = 0.5
PAIRS, PREFERRED = [[2.0, 0.0], [0.0, 2.0]], [0.8, 0.7]
DEMONSTRATIONS, CHOSEN = [[1.0, 1.0], [1.0, -1.0]], [0.3, 0.1]


def construction_b(scale: float = 1.0) -> Problem:
    """2-D: two DPO prompts and two SFT prompts (xright.md 2.4). `scale` multiplies f1."""
    pairs = both_answers([[BETA * x for x in row] for row in PAIRS], PREFERRED, scale)
    return Problem(pairs, both_answers(DEMONSTRATIONS, CHOSEN), 3.0)


def optima_b() -> tuple[Floats, Floats]:
    """Closed form of construction B's optima: beta A theta = logit p, B theta = logit p."""
    logits = [np.log(np.array(p) / (1 - np.array(p))) for p in (PREFERRED, CHOSEN)]
    return (
        np.linalg.solve(BETA * np.array(PAIRS), logits[0]),
        np.linalg.solve(np.array(DEMONSTRATIONS), logits[1]),
    )
