"""Tables of the convex bench: optima, sequential training, ALRIGHT, and clipping.

Each function makes one table from runs of the product's own schedules. A `reference` column holds
what xright.md 2.3, 2.4 and T13 print.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from experiments.convex import problem as convex
from experiments.convex.problem import Floats, Problem
from experiments.convex.runs import Run, alright, mix, sequential
from experiments.tables import Table
from onestage.training.optimizer import Clipping

LAMBDAS = (0.25, 0.5, 0.75)
SEED = 0


@dataclass(frozen=True)
class Size:
    """How much a bench runs."""

    longest: int
    """Largest T of the table over T."""
    seeds: int
    whole: bool
    """Whether the tables that need many runs are made."""
    most: int
    """Seeds of the runs whose schedules are asked losses in every step."""

    @classmethod
    def named(cls, name: Literal["quick", "default", "full"], seeds: int) -> Size:
        longest, most = {"quick": (1000, 4), "default": (10_000, 12), "full": (50_000, seeds)}[name]
        return cls(longest, seeds, name != "quick", min(seeds, most))


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
        if steps > max(size.longest, 1500):
            continue
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
            "f1 - f1*, f2 - f2* there": [
                float(gap) for gap in problem.gaps(problem.chebyshev(lam)[0])
            ],
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


Clipped = Literal["none", "step", "common"]
CLIPPED: dict[tuple[str, Clipped], float | None] = {
    ("ALRIGHT", "none"): 0.0,
    ("ALRIGHT", "step"): 0.0720,
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
        f"{size.most} seeds, 4,000 steps of .05; the average of the second half; "
        "mean factor on each term",
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
