"""Projected SGD on a convex problem, many seeds at once, with the product's schedules at the wheel.

The arithmetic over seeds is numpy; which objective a step trains on, by how much it weighs and how
far it is clipped is asked of the same `Schedule` and `Clipping` objects that training uses, one per
seed. Shapes: N steps of a block, S seeds, O = 2 objectives, C cells, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from experiments.convex.problem import TERMS, Floats, Problem
from onestage.schedules import Schedule, active
from onestage.schedules._suboptimality import Suboptimality
from onestage.schedules.alright import Alright
from onestage.schedules.maxright import Maxright
from onestage.schedules.mix import Mix
from onestage.schedules.sequential import Sequential
from onestage.schedules.smooth_maxright import SmoothMaxright
from onestage.training.optimizer import Clipping

BLOCK = 500
"""Steps whose batches are drawn at once."""
Decided = Literal["exact", "batch"]


@dataclass(frozen=True)
class Run:
    """What is kept of S runs."""

    last_SD: Floats
    average_SD: Floats
    """Over all steps, each before its update."""
    tail_SD: Floats
    """Average over the second half."""
    path_NSD: Floats
    """Thinned to a few hundred steps; the last point is the last iterate."""
    trained: Floats
    """Fraction of the steps that each objective was trained in, (O,)."""
    clipped: Floats
    """Mean clipping factor of the steps that trained each, (O,); 1 without clipping."""


class Recorder:
    """Averages and thinned paths, as a run goes along."""

    def __init__(self, steps: int, seeds: int, dimensions: int, points: int = 400) -> None:
        self.steps, self.every = steps, max(1, steps // points)
        self.sum, self.tail = np.zeros((seeds, dimensions)), np.zeros((seeds, dimensions))
        self.path: list[Floats] = []
        self.trained, self.clipped = np.zeros((seeds, 2)), np.zeros((seeds, 2))

    def step(self, step: int, theta_SD: Floats, weight_SO: Floats, factor_S: Floats) -> None:
        self.sum += theta_SD
        if step >= self.steps // 2:
            self.tail += theta_SD
        if step % self.every == 0:
            self.path.append(theta_SD)
        used_SO = weight_SO > 0
        self.trained += used_SO
        self.clipped += used_SO * factor_S[:, None]

    def run(self, theta_SD: Floats) -> Run:
        return Run(
            last_SD=theta_SD,
            average_SD=self.sum / self.steps,
            tail_SD=self.tail / (self.steps - self.steps // 2),
            path_NSD=np.array([*self.path, theta_SD]),
            trained=self.trained.mean(0) / self.steps,
            clipped=self.clipped.sum(0) / np.maximum(self.trained.sum(0), 1),
        )


def batches(
    problem: Problem, rng: np.random.Generator, batch: int, steps: int, seeds: int
) -> Iterator[tuple[Floats, Floats]]:
    """Frequencies (S, C) of a batch of each objective, step by step; `batch` 0 is the exact one."""
    for start in range(0, steps, BLOCK):
        size = (min(BLOCK, steps - start), seeds)
        drawn = [
            problem_part.draw(rng, batch, size)
            if batch
            else np.broadcast_to(problem_part.odds_C, (*size, len(problem_part.odds_C)))
            for problem_part in problem.objectives
        ]
        yield from zip(*drawn, strict=True)


def plan(schedules: Sequence[Schedule], steps: int) -> Iterator[Floats]:
    """Weights (S, O), step by step, of schedules that observe nothing."""
    for step in range(steps):
        rows = [schedule.weigh(step) for schedule in schedules]
        yield np.array([[row[term] for term in TERMS] for row in rows])


def same_for_all(schedule: Schedule, steps: int, seeds: int) -> Iterator[Floats]:
    """`plan` for a schedule that draws nothing: asked once, used for every seed."""
    for weight_SO in plan([schedule], steps):
        yield np.broadcast_to(weight_SO, (seeds, 2))


def descend(
    problem: Problem,
    weights: Iterator[Floats],
    steps: int,
    alpha: float,
    *,
    seeds: int,
    seed: int,
    batch: int = 1,
    start: Floats | None = None,
    clip: Callable[[], Clipping] | None = None,
) -> Run:
    """theta <- Proj(theta - alpha * c * sum_i w_i g_i(theta; batch)), weights w fixed in advance."""
    rng = np.random.default_rng([seed, 1])
    theta = np.tile(start if start is not None else np.zeros(problem.dimensions), (seeds, 1))
    record = Recorder(steps, seeds, problem.dimensions)
    clips = [clip() for _ in range(seeds)] if clip else []
    drawn = batches(problem, rng, batch, steps, seeds)
    for step, (weight_SO, often) in enumerate(zip(weights, drawn, strict=True)):
        slope = np.zeros_like(theta)
        for i, part in enumerate(problem.objectives):
            slope += weight_SO[:, i, None] * part.gradient(theta, often[i])
        factor = clip_factors(clips, weight_SO, slope)
        record.step(step, theta, weight_SO, factor)
        theta = problem.project(theta - alpha * factor[:, None] * slope)
    return record.run(theta)


def clip_factors(clips: Sequence[Clipping], weight_SO: Floats, slope_SD: Floats) -> Floats:
    """Each seed's factor, from its own `Clipping`."""
    if not clips:
        return np.ones(len(slope_SD))
    norms = np.linalg.norm(slope_SD, axis=1)
    return np.array(
        [
            clip.factor(active(dict(zip(TERMS, row, strict=True))), float(norm))
            for clip, row, norm in zip(clips, weight_SO, norms, strict=True)
        ]
    )


def weight(lam: float) -> dict[str, float]:
    return dict(zip(TERMS, (lam, 1 - lam), strict=True))


def sequential(
    problem: Problem, steps: int, scale: float, *, first: str, seeds: int, seed: int, batch: int = 1
) -> Run:
    """`steps` of each stage, step size scale/sqrt(steps)."""
    order = [first, *(term for term in TERMS if term != first)]
    schedule = Sequential(weight(0.5), 2 * steps, order=order)
    plans = same_for_all(schedule, 2 * steps, seeds)
    return descend(
        problem, plans, 2 * steps, scale / steps**0.5, seeds=seeds, seed=seed, batch=batch
    )


def alright(
    problem: Problem,
    steps: int,
    alpha: float,
    *,
    lam: float,
    seeds: int,
    seed: int,
    batch: int = 1,
    clip: Callable[[], Clipping] | None = None,
) -> Run:
    draws = [Alright(weight(lam), steps, seed=1000 * seed + s) for s in range(seeds)]
    plans = plan(draws, steps)
    return descend(problem, plans, steps, alpha, seeds=seeds, seed=seed, batch=batch, clip=clip)


def mix(
    problem: Problem,
    steps: int,
    alpha: float,
    *,
    lam: float,
    seeds: int,
    seed: int,
    batch: int = 1,
    clip: Callable[[], Clipping] | None = None,
) -> Run:
    plans = same_for_all(Mix(weight(lam), steps), steps, seeds)
    return descend(problem, plans, steps, alpha, seeds=seeds, seed=seed, batch=batch, clip=clip)


def maxright(
    problem: Problem,
    make: Callable[[int], Suboptimality],
    steps: int,
    alpha: float,
    *,
    seeds: int,
    seed: int,
    batch: int = 1,
    decided: Decided = "batch",
    unchosen: Literal["kept", "thrown away"] = "thrown away",
    optimum: Literal["given", "lowered"] = "given",
) -> Run:
    """MAXRIGHT and its smooth form: the schedule is shown losses as training shows them.

    Losses that it asks for are measured on the batch it would train on (`same_batch`), on one drawn
    apart, or exactly; the training batch's loss, before the update, is observed for free. `unchosen`:
    what becomes of a batch that no step was taken on. `optimum`: `given` is the schedule's own way, by
    which a given f* stands; with `lowered` a noisy loss below f* lowers f* for good.
    """
    rng, apart_rng = np.random.default_rng([seed, 1]), np.random.default_rng([seed, 2])
    theta = np.zeros((seeds, problem.dimensions))
    record = Recorder(steps, seeds, problem.dimensions)
    schedules = [make(s) for s in range(seeds)]
    apart_needed = decided == "batch" and schedules[0].measure == "own_batch"
    drawn = batches(problem, rng, batch, steps, seeds)
    apart = batches(problem, apart_rng, batch if apart_needed else 0, steps, seeds)
    ones, weight_SO = np.ones(seeds), np.ones((seeds, 2))
    held: list[Floats] = []
    for step, (fresh, other) in enumerate(zip(drawn, apart, strict=True)):
        if unchosen == "kept" and held:
            used = weight_SO > 0
            held = [np.where(used[:, i, None], fresh[i], held[i]) for i in range(2)]
        else:
            held = list(fresh)
        parts = problem.objectives
        trained = _losses(problem, theta, None if decided == "exact" else held)
        measured = _losses(problem, theta, other) if apart_needed else trained
        weight_SO = np.zeros((seeds, 2))
        for s, schedule in enumerate(schedules):
            due = schedule.wants(step)
            if due:
                schedule.observe(step, {term: measured[TERMS.index(term)][s] for term in due})
            if optimum == "lowered":
                best, now = schedule.best, schedule.values
                schedule.best = {term: min(best[term], now.get(term, best[term])) for term in best}
            row = schedule.weigh(step)
            weight_SO[s] = [row[term] for term in TERMS]
            schedule.observe(step, {term: trained[TERMS.index(term)][s] for term in active(row)})
        slope = sum(weight_SO[:, i, None] * p.gradient(theta, held[i]) for i, p in enumerate(parts))
        record.step(step, theta, weight_SO, ones)
        theta = problem.project(theta - alpha * slope)
    return record.run(theta)


def _losses(problem: Problem, theta: Floats, often: Sequence[Floats] | None) -> list[list[float]]:
    """Of each objective, for each seed: plain floats, as schedules take them."""
    return [
        part.loss(theta, None if often is None else often[i]).tolist()
        for i, part in enumerate(problem.objectives)
    ]


def deciding(
    problem: Problem,
    steps: int,
    lam: float,
    *,
    decide: Literal["ema", "independent", "same_batch"],
    refresh_steps: int = 1,
    ema_rate: float | None = None,
) -> Callable[[int], Maxright]:
    """A maker of MAXRIGHT schedules that know f1* and f2*."""
    optimum = dict(zip(TERMS, problem.optima, strict=True))

    def make(seed: int) -> Maxright:
        return Maxright(
            weight(lam),
            steps,
            seed=seed,
            optimum=optimum,
            refresh_steps=refresh_steps,
            ema_rate=ema_rate,
            decide=decide,
        )

    return make


def smoothly(
    problem: Problem, steps: int, lam: float, temperature: float
) -> Callable[[int], SmoothMaxright]:
    """A maker of smooth MAXRIGHT schedules that know f1* and f2* and take losses as they are."""
    optimum = dict(zip(TERMS, problem.optima, strict=True))

    def make(seed: int) -> SmoothMaxright:
        return SmoothMaxright(
            weight(lam),
            steps,
            seed=seed,
            optimum=optimum,
            refresh_steps=1,
            ema_rate=1.0,
            temperature=temperature,
        )

    return make
