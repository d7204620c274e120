"""The convex bench: every number that xright.md 2.3, 2.4 and T13 print, measured again.

Each function makes one table from runs of the product's own schedules. A `reference` column holds
what xright.md prints.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from onestage.lab import convex
from onestage.lab.convex import Floats, Problem
from onestage.lab.convex_runs import Run, alright, deciding, maxright, mix, sequential
from onestage.schedules.clipping import Clipping

LAMBDAS = (0.25, 0.5, 0.75)
SEED = 0
MAXRIGHT_STEPS = 4000


@dataclass(frozen=True)
class Size:
    """How much a bench runs."""

    longest: int
    """Largest T of the table over T."""
    seeds: int
    most: int
    """Seeds of the runs whose schedules are asked losses in every step."""

    @classmethod
    def named(cls, name: Literal["quick", "default", "full"], seeds: int) -> Size:
        longest, most = {"quick": (1000, 4), "default": (10_000, 12), "full": (50_000, seeds)}[name]
        return cls(longest, seeds, min(seeds, most))


@dataclass
class Table:
    """Rows of plain values; None where there is nothing to print."""

    name: str
    title: str
    columns: list[str]
    note: str = ""
    rows: list[list[Any]] = field(default_factory=list)
    seconds: float = 0.0


def bench(size: Size) -> Iterator[Table]:
    """All tables, each as soon as it is measured."""
    parts: list[Callable[[Size], Table]] = [
        stuck,
        optima,
        over_time,
        selection,
        staleness,
        product,
        clipping,
    ]
    for part in parts:
        start = time.perf_counter()
        table = part(size)
        table.seconds = round(time.perf_counter() - start, 2)
        yield table


def stuck(size: Size) -> Table:
    """Construction A: the gap of sequential training does not shrink with T."""
    table = Table(
        "stuck",
        "Construction A: gap after sequential training, DPO then SFT",
        ["R", "lambda", "T a stage", "gap", "closed form", "reference"],
        f"Steps of 1/sqrt T for R = 2: provably constant from T = {convex.steps_a(2, 1):.0f} on. For "
        f"R = 5 steps of 40/sqrt T: from T = {convex.steps_a(5, 40):.0f} on.",
    )
    printed = {100: 0.3789, 1000: 0.43378, 1500: 0.43378, 10_000: 0.43378}
    for steps, reference in printed.items():
        row = [2, 0.5, steps, gap_a(2.0, 0.5, steps), convex.gap_a(2.0, 0.5)[0], reference]
        table.rows.append(row)
    for lam, reference in zip(LAMBDAS, (0.6944, 1.8136, 3.1944), strict=True):
        measured, closed = gap_a(5.0, lam, 1500, scale=40.0), convex.gap_a(5.0, lam)[0]
        table.rows.append([5, lam, 1500, measured, closed, reference])
    return table


def gap_a(radius: float, lam: float, steps: int, scale: float = 1.0, first: str = "dpo") -> float:
    """Measured: G_lambda of the last iterate, with exact gradients."""
    problem = convex.construction_a(radius)
    run = sequential(problem, steps, scale, first=first, seeds=1, seed=SEED, batch=0)
    return float(problem.gap(run.last_SD, lam)[0])


def optima(size: Size) -> Table:
    """Construction B: where the optima lie, and what sequential training must lose."""
    problem = convex.construction_b()
    table = Table(
        "optima",
        "Construction B: optima, and what sequential training must lose",
        ["", *(f"lambda {lam}" for lam in LAMBDAS)],
        "Exact. Gap: what a sequential run that converges in its last stage lands on, with its bounds.",
    )
    columns = [
        {
            "argmin F": problem.argmin(lam).tolist(),
            "min F": float(problem.mixture(problem.argmin(lam), lam)),
            "DPO then SFT: bound, gap, bound": list(problem.forgetting(lam, kept=1)),
            "SFT then DPO: bound, gap, bound": list(problem.forgetting(lam, kept=0)),
            "f1 - f1*, f2 - f2* at argmin F": [
                float(gap) for gap in problem.gaps(problem.argmin(lam))
            ],
            "ideal distance there": float(problem.ideal_distance(problem.argmin(lam))),
            "Chebyshev point": problem.chebyshev(lam)[0].tolist(),
            "f1 - f1*, f2 - f2* there": [float(gap) for gap in _corner(problem, lam)],
            "ideal distance of that": float(problem.ideal_distance(problem.chebyshev(lam)[0])),
            "fraction of DPO steps there": problem.chebyshev(lam)[1],
        }
        for lam in LAMBDAS
    ]
    table.rows = [[name, *(column[name] for column in columns)] for name in columns[0]]
    return table


OVER_TIME = {
    100: (0.1077, 0.2002, 0.01330, 0.00521),
    1000: (0.0886, 0.2741, 0.00414, 0.00063),
    10_000: (0.0907, 0.2820, 0.00096, 0.00007),
    50_000: (0.0894, 0.2820, 0.00052, 0.00001),
}
"""Printed: DPO then SFT, SFT then DPO, ALRIGHT's last iterate, ALRIGHT's average."""


def over_time(size: Size) -> Table:
    """Construction B: sequential against ALRIGHT as T grows."""
    table = Table(
        "over_time",
        "Construction B: gap G at lambda = .5, one record a step",
        ["T", "run", "gap", "standard error", "reference"],
        f"{size.seeds} seeds; Sequential T + T steps of 2/sqrt T, ALRIGHT 2T steps of 2/sqrt 2T",
    )
    for steps, printed in OVER_TIME.items():
        if steps > size.longest:
            continue
        for (name, gaps), reference in zip(
            gaps_at(steps, size.seeds).items(), printed, strict=True
        ):
            error = float(gaps.std(ddof=1)) / len(gaps) ** 0.5
            table.rows.append([steps, name, float(gaps.mean()), error, reference])
    return table


def gaps_at(steps: int, seeds: int, seed: int = SEED) -> dict[str, Floats]:
    """G at lambda = .5 of each seed, for the four columns of the reference."""
    problem = convex.construction_b()
    found = {}
    for first, second in (convex.TERMS, convex.TERMS[::-1]):
        run = sequential(problem, steps, 2.0, first=first, seeds=seeds, seed=seed)
        found[f"Sequential, {first} then {second}"] = problem.gap(run.last_SD, 0.5)
    run = alright(problem, 2 * steps, 2 / (2 * steps) ** 0.5, lam=0.5, seeds=seeds, seed=seed)
    found["ALRIGHT, last iterate"] = problem.gap(run.last_SD, 0.5)
    found["ALRIGHT, average"] = problem.gap(run.average_SD, 0.5)
    return found


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
    return [point.tolist(), gaps, excess(problem, point, lam), distance]


def excess(problem: Problem, point: Floats, lam: float) -> float:
    """M - M*: by how much the worst weighted gap exceeds that of the Chebyshev point."""
    worst = [max(lam * a, (1 - lam) * b) for a, b in (problem.gaps(point), _corner(problem, lam))]
    return float(worst[0] - worst[1])


def _corner(problem: Problem, lam: float) -> tuple[Floats, Floats]:
    return problem.gaps(problem.chebyshev(lam)[0])


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
        "`lowered`: a loss below f* lowers f* for good, as the schedule does by itself; `given`: f* "
        "is put back before every decision. Late: mean distance of the iterates of the second half, and "
        "their spread (standard deviation).",
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


Clipped = Literal["none", "step", "auto", "common"]
CLIPPED: dict[tuple[str, Clipped], float | None] = {
    ("ALRIGHT", "none"): 0.0,
    ("ALRIGHT", "step"): 0.0720,
    ("ALRIGHT", "auto"): None,
    ("ALRIGHT", "common"): None,
    ("Mix", "none"): 0.0,
    ("Mix", "step"): 0.0001,
}


def clipping(size: Size) -> Table:
    """Construction B with f1 times 5: clipping each step on its own changes the terms' weights."""
    problem = convex.construction_b(scale=5.0)
    table = Table(
        "clipping",
        "f1 times 5, norms clipped at .3, lambda = .5, batch 16",
        ["schedule", "clipping", "gap of F", "dpo times", "sft times", "reference"],
        f"{size.most} seeds, 4,000 steps of .05; the average of the second half; mean factor on each term",
    )
    for (name, how), reference in CLIPPED.items():
        run = clipped(problem, name, how, size.most)
        gap = float(problem.gap(run.tail_SD, 0.5).mean())
        table.rows.append([name, how, gap, *map(float, run.clipped), reference])
    return table


def clipped(problem: Problem, name: str, how: Clipped, seeds: int, steps: int = 4000) -> Run:
    make = None if how == "none" else lambda: Clipping(0.3, how)
    take = {"ALRIGHT": alright, "Mix": mix}[name]
    return take(problem, steps, 0.05, lam=0.5, seeds=seeds, seed=SEED, batch=16, clip=make)


def trajectories(seeds: int) -> dict[str, Floats]:
    """Paths (N, S, 2) for the figure, at lambda = .5."""
    problem = convex.construction_b()
    found = {
        "dpo first": sequential(problem, 1000, 2.0, first="dpo", seeds=seeds, seed=SEED),
        "sft first": sequential(problem, 1000, 2.0, first="sft", seeds=seeds, seed=SEED),
        "alright": alright(problem, 2000, 2 / 2000**0.5, lam=0.5, seeds=seeds, seed=SEED),
        "same batch": chosen(problem, 0.5, seeds, decide="same_batch"),
        "independent": chosen(problem, 0.5, seeds, decide="independent"),
    }
    return {name: np.asarray(run.path_NSD) for name, run in found.items()}
