"""A table of the convex bench: every schedule that combines terms, on one problem, at one budget.

Each is told f* where it can be, and shown noisy losses and gradients as training shows them. What a
controller is for differs: Mix, ALRIGHT and RACO head for argmin F, MAXRIGHT and EPO for the Chebyshev
point, GAC for the weights of least expected error, the balancing ones and gradient surgery for some
point of the front that their rule picks, whatever lambda.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from experiments.convex import problem as convex
from experiments.convex.problem import Floats, Problem
from experiments.convex.runs import maxright, weight
from experiments.convex.tables import LAMBDAS, SEED, Size
from experiments.tables import Table
from onestage.schedules import Schedule, Slopes, make
from onestage.stats import hypervolume

STEPS, BATCH = 2000, 16
NAMES: dict[str, dict[str, Any]] = {
    "mix": {},
    "alright": {},
    "maxright": {"decide": "ema"},
    "smooth_maxright": {},
    "famo": {},
    "dynamic_average": {},
    "uncertainty": {},
}
"""Schedules and their options; gradient surgery stands apart, since its weights come from gradients."""
RULES = ("upgrad", "pcgrad", "mgda", "imtl_g", "aligned_mtl", "cagrad")
TOLD = ("raco", "nash_mtl", "epo", "gac")
"""Schedules that are told of gradients: of their inner products, or of their noise as well."""


def controllers(size: Size) -> Table:
    """Construction B: where each schedule ends, for three lambdas."""
    problem = convex.construction_b()
    table = Table(
        "controllers",
        "Every controller on construction B",
        [
            "controller",
            *(f"f1, f2 above best at {lam}" for lam in LAMBDAS),
            "off the front",
            "hypervolume",
            "spread",
            "us a step",
        ],
        f"{size.most} seeds (2 of surgery and of what is told of gradients), {STEPS:,} steps of "
        f"2/sqrt T, batch {BATCH}; the average of the second half. Off the front: how much lower f1 "
        "could be at the same f2, mean over lambdas. Hypervolume: of the three points, up to what each "
        "loses at the other's optimum, in parts of what exact optima of Mix have. Spread: standard "
        "deviation of f1 over seeds. Time: of deciding, without gradients; where 2 seeds, of all.",
    )
    # What each objective loses at the other's optimum: further out than any point of the front.
    ends = [problem.gaps(problem.argmin(float(1 - kept))) for kept in (1, 0)]
    corner = [float(gaps[kept]) for kept, gaps in enumerate(ends)]
    exact = [[float(g) for g in problem.gaps(problem.argmin(lam))] for lam in LAMBDAS]
    whole = hypervolume(exact, corner)
    for name, options in NAMES.items():
        clock = _Clock()
        runs = [_run(problem, clock, size.most, name, lam, options) for lam in LAMBDAS]
        each = clock.seconds / (len(LAMBDAS) * STEPS * size.most)
        table.rows.append([name, *_told(problem, runs, corner, whole), round(1e6 * each, 1)])
    by_gradients = {f"surgery, {rule}": partial(operated, problem, rule) for rule in RULES}
    by_gradients |= {name: partial(informed, problem, name) for name in TOLD}
    for name, run in by_gradients.items():
        begun, seeds = time.perf_counter(), min(2, size.most)
        runs = [run(lam, seeds) for lam in LAMBDAS]
        each = (time.perf_counter() - begun) / (len(LAMBDAS) * STEPS * seeds)
        table.rows.append([name, *_told(problem, runs, corner, whole), round(1e6 * each, 1)])
    return table


def _run(
    problem: Problem, clock: _Clock, seeds: int, name: str, lam: float, options: dict[str, Any]
) -> Floats:
    """The average of the second half of each seed's run, (S, D)."""
    make = clock.timing(partial(made, problem, name, lam, options))
    size = 2 / STEPS**0.5
    found = maxright(problem, make, STEPS, size, seeds=seeds, seed=SEED, batch=BATCH)
    return found.tail_SD


def operated(problem: Problem, rule: str, lam: float, seeds: int) -> Floats:
    """The same of gradient surgery, whose weights come from the steps' own gradients."""
    from onestage.training.surgery import Surgeon

    rng, surgeon = np.random.default_rng([SEED, 4]), Surgeon(rule)
    theta, late = np.zeros((seeds, problem.dimensions)), np.zeros((seeds, problem.dimensions))
    given = np.array([lam, 1 - lam])
    for step in range(STEPS):
        late += theta if step >= STEPS // 2 else 0.0
        parts = problem.objectives
        slope_OSD = np.stack([p.gradient(theta, p.draw(rng, BATCH, (seeds,))) for p in parts])
        slope_OSD *= given[:, None, None]
        products_SOO = np.einsum("osd,psd->sop", slope_OSD, slope_OSD)
        factor_SO = np.array([surgeon.factors(torch.from_numpy(one)) for one in products_SOO])
        theta = problem.project(
            theta - 2 / STEPS**0.5 * np.einsum("so,osd->sd", factor_SO, slope_OSD)
        )
    return late / (STEPS - STEPS // 2)


def informed(problem: Problem, name: str, lam: float, seeds: int) -> Floats:
    """The same of a schedule that is told of the steps' gradients: what they are to one another, and
    how far two halves of a batch are apart (H = 2)."""
    rng = np.random.default_rng([SEED, 4])
    rules = [made(problem, name, lam, {}, seed) for seed in range(seeds)]
    theta, late = np.zeros((seeds, problem.dimensions)), np.zeros((seeds, problem.dimensions))
    for step in range(STEPS):
        late += theta if step >= STEPS // 2 else 0.0
        parts = problem.objectives
        often = [part.draw(rng, BATCH // 2, (2, seeds)) for part in parts]
        seen = list(zip(parts, often, strict=True))
        loss_SO = np.stack([p.loss(theta, drawn).mean(0) for p, drawn in seen], axis=-1)
        half_HSOD = np.stack([p.gradient(theta, drawn) for p, drawn in seen], axis=2)
        slope_SOD = half_HSOD.mean(0)
        noise_SO = ((half_HSOD[0] - half_HSOD[1]) ** 2).sum(-1) / 4
        weight_SO = np.array(
            [
                _weighed(rule, step, loss_SO[n], slope_SOD[n], noise_SO[n])
                for n, rule in enumerate(rules)
            ]
        )
        theta = problem.project(
            theta - 2 / STEPS**0.5 * np.einsum("so,sod->sd", weight_SO, slope_SOD)
        )
    return late / (STEPS - STEPS // 2)


def _weighed(
    rule: Schedule, step: int, loss_O: Floats, slope_OD: Floats, noise_O: Floats
) -> list[float]:
    """Weights of the terms in a step, which the rule is then told of as training tells it."""
    products = dict(zip(convex.TERMS, slope_OD @ slope_OD.T, strict=True))
    slopes = Slopes(
        {
            term: dict(zip(convex.TERMS, map(float, row), strict=True))
            for term, row in products.items()
        },
        dict(zip(convex.TERMS, map(float, noise_O), strict=True)),
    )
    weights = rule.weigh(step)
    factors = rule.combine(slopes) if rule.combines else dict.fromkeys(convex.TERMS, 1.0)
    rule.observe(step, dict(zip(convex.TERMS, map(float, loss_O), strict=True)))
    if rule.feels:
        rule.feel(step, slopes)
    return [weights[term] * factors[term] for term in convex.TERMS]


def _told(problem: Problem, runs: list[Floats], corner: list[float], whole: float) -> list[Any]:
    gaps = [np.array(problem.gaps(run)) for run in runs]
    points = [gap.mean(1).tolist() for gap in gaps]
    off = float(np.mean([behind(problem, run) for run in runs]))
    spread = float(np.mean([gap[0].std() for gap in gaps]))
    return [*points, off, hypervolume(points, corner) / whole, spread]


def made(problem: Problem, name: str, lam: float, options: dict[str, Any], seed: int) -> Schedule:
    """One that knows f1* and f2*."""
    rule = make({"name": name, **options})
    best = dict(zip(convex.TERMS, problem.optima, strict=True))
    return rule.for_run(weight(lam), STEPS, 1000 * SEED + seed, best)


def behind(problem: Problem, points_SD: Floats) -> float:
    """Mean of f1 less the least f1 at the same f2, from the exact front."""
    front = np.array([problem.gaps(problem.argmin(m)) for m in np.linspace(0.001, 0.999, 400)])
    first, second = problem.gaps(points_SD)
    order = np.argsort(front[:, 1])
    return float((first - np.interp(second, front[order, 1], front[order, 0])).mean())


class _Clock:
    """Counts the time that schedules take."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timing(self, make: Callable[[int], Schedule]) -> Callable[[int], Any]:
        """A maker of schedules whose time is counted."""

        def made(seed: int) -> Any:
            found = make(seed)
            for name in ("wants", "weigh", "observe"):
                setattr(found, name, self._timed(getattr(found, name)))
            return found

        return made

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any) -> Any:
            start = time.perf_counter()
            try:
                return call(*given)
            finally:
                self.seconds += time.perf_counter() - start

        return timed
