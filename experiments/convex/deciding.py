"""Tables of the convex bench: which losses MAXRIGHT and its smooth form should decide by.

As in `tables`; the iterate that is told of is averaged over all steps and seeds, as in
xright.md 2.4.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from experiments.convex import problem as convex
from experiments.convex.problem import Floats, Problem
from experiments.convex.runs import Run, deciding, maxright, smoothly
from experiments.convex.tables import SEED, Size
from experiments.tables import Table

MAXRIGHT_STEPS = 4000
SELECTION: dict[str, tuple[dict[str, Any], float | None]] = {
    "exact losses": ({"decided": "exact", "decide": "independent"}, 0.1998),
    "same batch, size 1": ({"decide": "same_batch"}, 0.2386),
    "same batch, size 16": ({"decide": "same_batch", "batch": 16}, 0.2092),
    "same batch, size 256": ({"decide": "same_batch", "batch": 256, "steps": 1500}, 0.2009),
    "same, size 1, kept if unchosen": (
        {"decide": "same_batch", "unchosen": "kept"},
        None,
    ),
    "independent batch, size 1": ({"decide": "independent"}, 0.1987),
    "EMA .05, size 1": ({"decide": "ema", "ema_rate": 0.05}, 0.1990),
}
"""What decides in MAXRIGHT, and the ideal distance printed for it."""


def selection(size: Size) -> Table:
    """Construction B: the batch that decides must not be the batch that is trained on."""
    problem = convex.construction_b()
    table = Table(
        "selection",
        "MAXRIGHT, lambda = .5: what decides, measured anew in every step",
        ["decided by", "average iterate", "gaps", "worst - best", "distance", "reference"],
        f"{size.most} seeds, 4,000 steps (1,500 for size 256) of 2/sqrt T. Worst - best: how much more "
        "the worst weighted gap is than at the Chebyshev point, which minimises that; it does not "
        "minimise the ideal distance, which is .1998 there.",
    )
    for name, (options, reference) in SELECTION.items():
        run = chosen(problem, 0.5, size.most, **options)
        table.rows.append([name, *summary(problem, run, 0.5), reference])
    return table


def chosen(
    problem: Problem,
    lam: float,
    seeds: int,
    *,
    decide: Literal["ema", "independent", "same_batch"],
    steps: int = MAXRIGHT_STEPS,
    alpha: float | None = None,
    refresh_steps: int = 1,
    ema_rate: float | None = None,
    **options: Any,
) -> Run:
    """A MAXRIGHT run with steps of 2/sqrt T unless said otherwise."""
    make = deciding(
        problem, steps, lam, decide=decide, refresh_steps=refresh_steps, ema_rate=ema_rate
    )
    size = alpha or 2 / steps**0.5
    return maxright(problem, make, steps, size, seeds=seeds, seed=SEED, **options)


def summary(problem: Problem, run: Run, lam: float) -> list[Any]:
    """Of the iterate averaged over steps and seeds: itself, its gaps, its excess, its distance."""
    point = run.average_SD.mean(0)
    gaps = [float(gap) for gap in problem.gaps(point)]
    distance = float(problem.ideal_distance(point))
    return [point.tolist(), gaps, float(excess(problem, point, lam)), distance]


def excess(problem: Problem, points: Floats, lam: float) -> Floats:
    """M - M*: by how much the worst weighted gap exceeds that of the Chebyshev point."""
    here, best = problem.gaps(points), problem.gaps(problem.chebyshev(lam)[0])
    return np.maximum(lam * here[0], (1 - lam) * here[1]) - max(lam * best[0], (1 - lam) * best[1])


TEMPERATURES = (1.0, 0.1, 0.01)


def smooth(size: Size) -> Table:
    """Construction B: smooth MAXRIGHT lies between Mix (tau large) and MAXRIGHT (tau small)."""
    problem = convex.construction_b()
    table = Table(
        "smooth",
        "Smooth MAXRIGHT, lambda = .25, exact losses decide",
        ["tau", "average iterate", "its optimum", "weight of dpo there"],
        f"{size.most} seeds, 4,000 steps of 2/sqrt T",
    )
    for tau in TEMPERATURES:
        point, mu = problem.smooth_chebyshev(0.25, tau)
        measured = smoothed(problem, tau, size.most).average_SD.mean(0)
        table.rows.append([tau, measured.tolist(), point.tolist(), mu])
    return table


def smoothed(problem: Problem, tau: float, seeds: int) -> Run:
    make, size = smoothly(problem, MAXRIGHT_STEPS, 0.25, tau), 2 / MAXRIGHT_STEPS**0.5
    return maxright(problem, make, MAXRIGHT_STEPS, size, seeds=seeds, seed=SEED, decided="exact")


STALENESS = {0.02: (0.209, 0.200, 0.206, 0.261), 0.1: (0.209, 0.205, 0.244, 0.456)}
PERIODS = (1, 10, 100, 1000)


def staleness(size: Size) -> Table:
    """Construction B: how often losses must be measured."""
    problem = convex.construction_b()
    table = Table(
        "staleness",
        "MAXRIGHT, lambda = .5, batch 16, same batch decides: losses measured every k steps",
        ["step size", "k", "distance of the last", "standard error", "reference"],
        f"{size.most} seeds, 6,000 steps; the chosen term's loss is renewed in every step",
    )
    for alpha, printed in STALENESS.items():
        for period, reference in zip(PERIODS, printed, strict=True):
            distance = stale(problem, alpha, period, size.most)
            error = float(distance.std(ddof=1)) / len(distance) ** 0.5
            table.rows.append([alpha, period, float(distance.mean()), error, reference])
    return table


def stale(problem: Problem, alpha: float, period: int, seeds: int) -> Floats:
    """Ideal distance of each seed's last iterate after 6,000 steps."""
    options: dict[str, Any] = {"decide": "same_batch", "refresh_steps": period, "batch": 16}
    run = chosen(problem, 0.5, seeds, steps=6000, alpha=alpha, **options)
    return problem.ideal_distance(run.last_SD)


PRODUCT: dict[str, dict[str, Any]] = {
    "same batch": {"decide": "same_batch"},
    "same, kept if unchosen": {"decide": "same_batch", "unchosen": "kept"},
    "independent": {"decide": "independent"},
    "EMA .05": {"decide": "ema", "ema_rate": 0.05},
    "EMA .1": {"decide": "ema", "ema_rate": 0.1},
    "EMA .2": {"decide": "ema", "ema_rate": 0.2},
}


def product(size: Size) -> Table:
    """Construction B: the schedule's options at its default k = 10."""
    problem = convex.construction_b()
    table = Table(
        "product",
        "MAXRIGHT at k = 10, batch 16: which loss should decide",
        [
            "lambda",
            "f*",
            "decided by",
            "average iterate",
            "worst - best",
            "distance",
            "late",
            "spread",
        ],
        "`given`: f* stands, as the schedule has it; `lowered`: a loss below f* lowers f* for good. "
        "Late: mean distance of the iterates of the second half, and their spread (standard "
        "deviation).",
    )
    seeds = (size.most + 2) // 3  # eighteen runs; their averages over steps hardly differ by seed
    for lam, optimum in ((0.5, "given"), (0.25, "given"), (0.25, "lowered")):
        for name, options in PRODUCT.items():
            run = decided_by(problem, lam, seeds, optimum, options)
            late = problem.ideal_distance(run.path_NSD[len(run.path_NSD) // 2 :])
            point, _, worst, distance = summary(problem, run, lam)
            spread = [float(late.mean()), float(late.std())]
            table.rows.append([lam, optimum, name, point, worst, distance, *spread])
    return table


def decided_by(
    problem: Problem, lam: float, seeds: int, optimum: str, options: dict[str, Any]
) -> Run:
    return chosen(problem, lam, seeds, refresh_steps=10, batch=16, optimum=optimum, **options)
