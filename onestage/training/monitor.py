"""What a run is watched by: evaluation losses, gaps to the best, probes, and the guards that act.

Lower training losses are not a better model: retained knowledge can fall while every objective of a
run improves (lab.md B), and no objective sees it. A guard does: it is a threshold on what the probe
measures, with what happens above it (warn, stop, or raise the weight of a term).

A monitor is made before the first step (also of a run that is resumed), because much of it is told
against the model that the run starts from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from onestage.config import RecipeError, nearest
from onestage.data.encoded import Encoded
from onestage.schedules import Schedule
from onestage.schedules._around import Around
from onestage.stats import gaps, ideal_distance, normalised, p_below, weighted
from onestage.training.evaluate import by_record, evaluate, term_losses
from onestage.training.probes import Prober
from onestage.training.recipe import Guard, Optimum, Probe

if TYPE_CHECKING:
    from onestage.training.run import Run


CHANCE = 0.001
"""Smaller p: the start's records are surely below an f*."""


class Monitor:
    """Raises `RecipeError` or `ValueError` where a guard or a given f* contradicts the run."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._told = False
        # As given: with weights that a guard has raised, losses would be of another mean than before.
        self.share = dict(run.schedule.share)
        self.held_out = list(chain.from_iterable(run.data.held_out.values()))
        self.best = dict(run.optimum.given) if run.optimum else {}
        self._prober = _make_prober(run.probe, run, self.held_out) if run.probe else None
        for guard in run.guards:
            check(guard, self._prober.names() if self._prober else [], run.schedule)
        self._evaluated = evaluate(run, self.held_out, self.share) if self.best else {}
        """What was evaluated before the first step, where an f* is known."""
        self.start = self._standing() if self.best else {}
        """Losses of the terms then."""
        for term, best in self.best.items():
            if term in self.start and best > self.start[term]:
                self._above(term, best, self.start[term])

    def first(self) -> dict[str, float]:
        """What is known before the first step; empty where nobody asked."""
        found = self._prober() if self._prober else {}
        for guard in self.run.guards:
            if math.isnan(found[guard.measure]):
                then = "the guard will warn" if guard.then == "warn" else "the run will stop"
                self.run.say(
                    f"guard: {guard.measure} is not a number before the first step; where it still is "
                    f"none at a probe, {then}"
                )
        if self.held_out and self.start:
            found |= self._evaluated | self._tradeoff(_of_terms(self._evaluated))
        return found

    def evaluate(self) -> dict[str, float]:
        """Held-out losses of the last iterate, and of the average where one is kept; gaps."""
        found = evaluate(self.run, self.held_out, self.share)
        self._tell_missing(_of_terms(found))
        if self.run.average and self.run.average.mean:
            with self.run.average.in_place():
                averaged = evaluate(self.run, self.held_out, self.share)
            found |= {f"average_{name}": value for name, value in averaged.items()}
        return found | self._tradeoff(_of_terms(found))

    def _tell_missing(self, losses: Mapping[str, float]) -> None:
        """Once: terms that the mean of all does not know."""
        share = self.run.schedule.share
        missing = [name for name in self.run.feeds.own if share[name] and name not in losses]
        if losses and missing and not self._told:
            self.run.say(
                f"eval/loss: {', '.join(missing)} without held-out rows (`eval_path` or `eval_split`); "
                "the other terms weigh more for it"
            )
        self._told = True

    def probe(self) -> dict[str, float]:
        """The probe's measurements; the guards act on them."""
        run, found = self.run, self._prober() if self._prober else {}
        guards = run.guards
        if run.probe and run.step % run.probe.steps:
            # At the end, no weight is raised: a run that is made longer does not look at this step.
            guards = [g.model_copy(update={"then": "warn", "term": None}) for g in guards]
        if act(guards, found, run.schedule, run.say):
            run.stop = True
        return found

    def _standing(self) -> dict[str, float]:
        """Held-out loss of each term; on some of its training records where there are none."""
        found = term_losses(self.run, self.run.feeds.probe(self.run.feeds.own, 0))
        return found | _of_terms(self._evaluated)

    def _above(self, term: str, best: float, start: float) -> None:
        """An f* is above the start's loss. On held-out rows that contradicts itself. Without them it is
        of other training records than the start's, and a few differ by chance."""
        told = f"f* of {term} is {best}, but the model starts with a loss of {start:.6g}"
        if term not in _of_terms(self._evaluated):
            own = self.run.feeds.probe([term], 0)
            losses = [x for x in by_record(self.run, own, term) if x[1]]
            if len(losses) > 1 and p_below(weighted(losses), best) > CHANCE:
                self.run.say(
                    f"optimum: {told} on {len(losses)} training records. So few differ by more by "
                    f"chance, and the run goes on, without normalised gaps of {term}; with held-out "
                    "rows (`eval_path` or `eval_split`) both are of the same"
                )
                return
        raise RecipeError(f"optimum.given: {told}; f* is the lowest that can be reached")

    def _tradeoff(self, losses: dict[str, float]) -> dict[str, float]:
        gap, part = gaps(losses, self.best), normalised(losses, self.best, self.start)
        found = {f"gap/{term}": value for term, value in gap.items()}
        found |= {f"gap_normalised/{term}": value for term, value in part.items()}
        for name, values in (("ideal_distance", gap), ("ideal_distance_normalised", part)):
            if len(values) > 1:
                found[name] = ideal_distance(values)
        return found


def probed(probe: Probe | None, optimum: Optimum | None, steps: int) -> int:
    """Batches of each term that a run of so many steps draws for its monitor."""
    if probe:
        return steps // probe.steps + 1
    return int(optimum is not None)


def _make_prober(probe: Probe, run: Run, held_out: Sequence[Encoded]) -> Prober:
    task = {}
    for name in run.feeds.own if probe.task_tokens and "logp" in run.policy.gives else ():
        mine = [r for r in held_out if not r.is_problem and run.terms.name_of(r) == name]
        mine = mine or [r for r in run.feeds.probe([name], 0) if run.terms.name_of(r) == name]
        task[name] = up_to(mine, probe.task_tokens)
    watched = [stream.name for stream in probe.retention]
    kept = {name: list(run.data.retention[name]) for name in watched}
    return Prober(run, kept, {n: t for n, t in task.items() if t}, gradients=probe.gradients)


def up_to(records: Iterable[Encoded], tokens: int) -> list[Encoded]:
    """The first records, up to a number of scored tokens: at least one, for without any nothing would be
    measured."""
    found: list[Encoded] = []
    left = tokens
    for record in records:
        left -= record.scored
        if left < 0 and found:
            break
        found.append(record)
    return found


def _of_terms(losses: dict[str, float]) -> dict[str, float]:
    """The terms' held-out losses among evaluation results."""
    mark = "eval/terms/"
    return {name.removeprefix(mark): v for name, v in losses.items() if name.startswith(mark)}


class Guarded(Around):
    """A schedule that does as `inner` does, with weights that a guard raises.

    Raises `ValueError` where the inner schedule's weights mean nothing that could be raised.
    """

    def __init__(self, inner: Schedule) -> None:
        super().__init__(inner)
        self.raised: dict[str, float] = {}
        """Factors by which weights have been raised."""
        self._given = dict(inner.weights)
        # A schedule that cannot be reweighed is refused now, not at the first probe that finds too much.
        try:
            self._reweigh()
        except ValueError as error:
            raise ValueError(f"guard: {error}") from error

    def raise_weight(self, term: str, factor: float) -> None:
        """Multiply a term's weight from now on."""
        self.raised[term] = self.raised.get(term, 1.0) * factor
        self._reweigh()

    def _reweigh(self) -> None:
        self.weights = {term: w * self.raised.get(term, 1.0) for term, w in self._given.items()}
        self.inner.reweigh(self.weights)

    def state(self) -> dict[str, Any]:
        return {"raised": dict(self.raised), **self.inner.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.raised = dict(state.get("raised", {}))
        self._reweigh()
        self.inner.restore(state)


def check(guard: Guard, known: Sequence[str], schedule: Schedule) -> None:
    """Raise `ValueError` where a guard could never act. `known`: the names of what is measured."""
    if guard.measure not in known:
        raise ValueError(
            f"guard: nothing measures {guard.measure!r}{nearest(guard.measure, known)}"
        )
    if guard.term is None:
        return
    if guard.term not in schedule.weights:
        hint = nearest(guard.term, schedule.weights)
        raise ValueError(f"guard: no term {guard.term!r} to raise{hint}")
    if not schedule.weights[guard.term] > 0:
        raise ValueError(f"guard: the weight of {guard.term} is 0, which no factor raises")


def act(
    guards: Sequence[Guard],
    measured: Mapping[str, float],
    schedule: Schedule,
    say: Callable[[str], None],
) -> bool:
    """Do what the guards say about a probe's measurements; returns whether the run must stop.

    A measurement that is no number counts as too much; where a weight would be raised, which mends
    nothing then, the run stops.
    """
    stop = False
    for guard in guards:
        value = measured[guard.measure]
        if value <= guard.above:
            continue
        lost = math.isnan(value)
        told = f"guard: {guard.measure} is {value:.4g}, above {guard.above:.4g}"
        if lost:
            told = f"guard: {guard.measure} is not a number"
        if guard.term is not None and not lost:
            assert isinstance(schedule, Guarded)  # as the plan of a run with such a guard has it
            schedule.raise_weight(guard.term, guard.factor)
            told += f"; the weight of {guard.term} is now {schedule.share[guard.term]:.3f}"
        elif guard.then != "warn":
            told += "; the run stops here"
            stop = True
        say(told)
    return stop
