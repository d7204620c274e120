"""Tables of the convex bench: forgetting as a constraint, where the constrained optimum is known.

    minimise f1(theta)  subject to  x(theta) = f2(theta) - f2(0) <= bound

On the line (construction A) everything is in closed form: with f2 = log(1 + e^theta) the bound holds up
to theta = log(2 e^bound - 1), and the price is nu* = -f1'/f2' = 1 / (2 e^bound - 1). In the plane the
retained loss is the KL of the SFT prompts' answers to those of the start model (theta = 0), itself a
logistic loss: KL(1/2 || sigma(z)) = sp(z)/2 + sp(-z)/2 - log 2. Both f are convex, so the constrained
optimum is argmin F_m for the m at which x is the bound, and nu* = (1 - m) / m.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from experiments.convex import problem as convex
from experiments.convex.problem import Floats, Problem
from experiments.convex.tables import SEED, Size
from experiments.tables import Table
from onestage.schedules._multiplier import Multiplier

STEPS, EVERY, BATCH = 2000, 10, 16
BOUNDS = (0.01, 0.05, 0.15, 0.5)
"""The last one is slack: the optimum of f1 alone is .28 away."""
TRIALS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Fixed weights that are tried beside: as many trials as a user might spend."""
Weigh = Callable[[int, Floats], Floats]
"""The weight of x for each seed in a step, told what x is there."""


def kept_b() -> Problem:
    """Construction B's pairs, and the KL to the start model on its SFT prompts (plus log 2)."""
    even = [0.5] * len(convex.DEMONSTRATIONS)
    kl = convex.both_answers(convex.DEMONSTRATIONS, even)
    return Problem(convex.construction_b().first, kl, 3.0)


def optimum_a(bound: float) -> tuple[float, float]:
    """Closed form on the line: theta and nu*."""
    rest = 2 * math.exp(bound) - 1
    return math.log(rest), 1 / rest


def optimum(problem: Problem, bound: float) -> tuple[Floats, float]:
    """The constrained optimum and nu*, by bisection; nu* is 0 where the bound is slack."""
    free, limit = problem.argmin(1.0), start(problem) + bound
    if problem.second.loss(free) <= limit:
        return free, 0.0
    low, high = 0.0, 1.0
    for _ in range(50):
        m = (low + high) / 2
        low, high = (m, high) if problem.second.loss(problem.argmin(m)) < limit else (low, m)
    return problem.argmin(low), (1 - low) / low


def start(problem: Problem) -> float:
    return float(problem.second.loss(np.zeros(problem.dimensions)))


def descend(
    problem: Problem, weigh: Weigh, seeds: int, batch: int = BATCH
) -> tuple[Floats, Floats]:
    """Last iterates (S, D) of f1 + nu x, and x over all steps (N, S).

    The step is divided by 1 + nu, as a run divides it, and falls linearly to 0.
    """
    rng, theta = np.random.default_rng([SEED, 3]), np.zeros((seeds, problem.dimensions))
    alpha, before, seen = 4 / STEPS**0.5, start(problem), []
    for step in range(STEPS):
        seen.append(problem.second.loss(theta) - before)
        nu = weigh(step, seen[-1])[:, None]
        parts = problem.objectives
        drawn = [p.draw(rng, batch, (seeds,)) if batch else None for p in parts]
        slopes = [p.gradient(theta, often) for p, often in zip(parts, drawn, strict=True)]
        rate = alpha * (1 - step / STEPS) / (1 + nu)
        theta = problem.project(theta - rate * (slopes[0] + nu * slopes[1]))
    return theta, np.array(seen)


def controlled(makers: Sequence[Multiplier]) -> Weigh:
    """Multipliers, one a seed, that measure x every `EVERY` steps."""

    def weigh(step: int, seen_S: Floats) -> Floats:
        if step and step % EVERY == 0:
            for one, x in zip(makers, seen_S.tolist(), strict=True):
                one.observe(x)
        return np.array([one.weight for one in makers])

    return weigh


def plain_ascent(seeds: int, bound: float, rate: float) -> Weigh:
    """nu <- max(0, nu + rate (x - bound)): what the controller is compared with."""
    nu = np.zeros(seeds)

    def weigh(step: int, seen_S: Floats) -> Floats:
        nonlocal nu
        if step and step % EVERY == 0:
            nu = np.maximum(0, nu + rate * (seen_S - bound))
        return nu

    return weigh


def weighers(seeds: int, bound: float) -> dict[str, Weigh]:
    """Every way of weighing that the table has, by name."""
    found = {
        "PI on log nu": controlled([Multiplier(bound) for _ in range(seeds)]),
        "PI on log nu, no margin": controlled([Multiplier(bound, margin=0) for _ in range(seeds)]),
        "dual ascent, rate 1": plain_ascent(seeds, bound, 1.0),
        "dual ascent, rate 30": plain_ascent(seeds, bound, 30.0),
        "no constraint": lambda step, x: np.zeros(seeds),
    }

    def fixed(nu: float) -> Weigh:
        return lambda step, x: np.full(seeds, nu)

    return found | {f"fixed, {nu:g}": fixed(nu) for nu in TRIALS}


def constrained(size: Size) -> Table:
    """Construction B: what holds the bound, and how far from the constrained optimum."""
    problem = kept_b()
    table = Table(
        "constrained",
        "Forgetting as a constraint: KL to the start model at most `bound`",
        ["bound", "nu*", "run", "nu", "x", "over the bound", "peak", "goal lost", "swing"],
        f"{size.most} seeds, {STEPS:,} steps, batch {BATCH}, x measured every {EVERY}. Over the bound: "
        "seeds whose last iterate breaks it. Peak: the largest x on the way, over the bound. Goal lost: "
        "f1 less that of the constrained optimum, against what that gains. Swing: the standard "
        "deviation of log x over the second half of the run. Of the fixed weights, the best goal among "
        "those whose mean x holds the bound.",
    )
    for bound in BOUNDS:
        best, price = optimum(problem, bound)
        rows = {
            n: _row(problem, bound, best, w, size.most)
            for n, w in weighers(size.most, bound).items()
        }
        held = [n for n in rows if n.startswith("fixed") and rows[n][1] <= bound]
        kept = min(held, key=lambda n: rows[n][4], default=None)
        shown = [n for n in rows if not n.startswith("fixed") or n == kept]
        table.rows += [[bound, price, name, *rows[name]] for name in shown]
    return table


def _row(problem: Problem, bound: float, best: Floats, weigh: Weigh, seeds: int) -> list[float]:
    told: list[Floats] = []

    def noted(step: int, seen_S: Floats) -> Floats:
        told.append(weigh(step, seen_S))
        return told[-1]

    theta, seen = descend(problem, noted, seeds)
    x = problem.second.loss(theta) - start(problem)
    goal, here = problem.first.loss(np.zeros(problem.dimensions)), problem.first.loss(theta)
    reached = float(problem.first.loss(best))
    late = np.log(np.maximum(seen[STEPS // 2 :], 1e-9)).std(0)
    return [
        float(told[-1].mean()),
        float(x.mean()),
        float((x > bound).mean()),
        float(seen.max(0).mean() / bound),
        float((here - reached).mean() / (float(goal) - reached)),
        float(late.mean()),
    ]
