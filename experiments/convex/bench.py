"""The convex bench: every number that xright.md 2.3, 2.4 and T13 print, measured again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from experiments.convex import constrained as convex_constrained
from experiments.convex import controllers as convex_controllers
from experiments.convex import deciding as convex_deciding
from experiments.convex import problem as convex
from experiments.convex import tables as convex_tables
from experiments.convex.deciding import chosen
from experiments.convex.problem import Floats
from experiments.convex.runs import alright, sequential
from experiments.convex.tables import SEED, Size
from experiments.tables import Table


def bench(size: Size) -> Iterator[Table]:
    """All tables, each as soon as it is measured."""
    parts: list[Callable[[Size], Table]] = [
        convex_tables.stuck,
        convex_tables.optima,
        convex_tables.over_time,
        convex_deciding.selection,
        convex_deciding.smooth,
        convex_tables.clipping,
    ]
    if size.whole:
        parts += [convex_constrained.constrained, convex_controllers.controllers]
        parts += [convex_deciding.staleness, convex_deciding.product]
    for part in parts:
        start = time.perf_counter()
        table = part(size)
        table.seconds = round(time.perf_counter() - start, 2)
        yield table


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
    return {name: run.path_NSD for name, run in found.items()}
