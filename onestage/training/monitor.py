"""What a run is watched by: evaluation losses, gaps to the best, probes, and the guards that act.

Made before the first step (also of a run that is resumed), because much of it is told against the
model that the run starts from.

The forgetting guard: thresholds on what the probe measures, and what happens above them.

Lower training losses are not a better model: retained knowledge can fall while every objective of a
run improves (lab.md B), and no objective sees it. A guard does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from onestage.config import RecipeError, nearest
from onestage.data.encoded import Encoded
from onestage.schedules import Schedule
from onestage.stats import gaps, ideal_distance, normalised
from onestage.training.evaluate import evaluate, term_losses
from onestage.training.loop import Run
from onestage.training.probes import Probe
from onestage.training.read import Data
from onestage.training.recipe import Recipe


class Lookout:
    """Raises `RecipeError` or `ValueError` where a guard or a given f* contradicts the run."""

    def __init__(self, recipe: Recipe, run: Run, data: Data, say: Callable[[str], None]) -> None:
        self.run, self.say = run, say
        self.held_out = list(chain.from_iterable(data.held_out.values()))
        self.best = dict(recipe.optimum.given) if recipe.optimum else {}
        self.guards = [Guard(**guard.model_dump()) for guard in recipe.guard]
        self._probe = _make_probe(recipe, run, data, self.held_out) if recipe.probe else None
        for guard in self.guards:
            guard.check(self._probe.names() if self._probe else [], run.schedule)
        self._evaluated = evaluate(run, self.held_out) if self.best else {}
        """What was evaluated before the first step, where an f* is known."""
        self.start = self._standing() if self.best else {}
        """Losses of the terms then."""
        for term, best in self.best.items():
            if term in self.start and best > self.start[term]:
                raise RecipeError(
                    f"optimum.given: f* of {term} is {best}, but the model starts with a loss of "
                    f"{self.start[term]:.6g}; f* is the lowest that can be reached"
                )

    def first(self) -> dict[str, float]:
        """What is known before the first step; empty where nobody asked."""
        found = self._probe() if self._probe else {}
        if self.held_out and self.start:
            found |= self._evaluated | self._tradeoff(_of_terms(self._evaluated))
        return found

    def evaluate(self) -> dict[str, float]:
        """Held-out losses of the last iterate, and of the average where one is kept; gaps."""
        found = evaluate(self.run, self.held_out)
        if self.run.average and self.run.average.mean:
            with self.run.average.in_place():
                averaged = evaluate(self.run, self.held_out)
            found |= {f"average_{name}": value for name, value in averaged.items()}
        return found | self._tradeoff(_of_terms(found))

    def probe(self) -> dict[str, float]:
        """The probe's measurements; the guards act on them."""
        found = self._probe() if self._probe else {}
        if act(self.guards, found, self.run.schedule, self.say):
            self.run.stop = True
        return found

    def _standing(self) -> dict[str, float]:
        """Held-out loss of each term; on some of its training records where there are none."""
        found = term_losses(self.run, self.run.feeds.probe(self.run.feeds.own, 0))
        return found | _of_terms(self._evaluated)

    def _tradeoff(self, losses: dict[str, float]) -> dict[str, float]:
        gap, part = gaps(losses, self.best), normalised(losses, self.best, self.start)
        found = {f"gap/{term}": value for term, value in gap.items()}
        found |= {f"gap_normalised/{term}": value for term, value in part.items()}
        for name, values in (("ideal_distance", gap), ("ideal_distance_normalised", part)):
            if len(values) > 1:
                found[name] = ideal_distance(values)
        return found


def probes_of(recipe: Recipe, steps: int) -> int:
    """Batches of each term that a run draws only to look at them, besides the schedule's."""
    if recipe.probe:
        return steps // recipe.probe.steps + 1
    return int(recipe.optimum is not None)


def _make_probe(recipe: Recipe, run: Run, data: Data, held_out: Sequence[Encoded]) -> Probe:
    options = recipe.probe
    assert options is not None
    task = {}
    for name in run.feeds.own if options.task_tokens and run.policy.task == "causal" else ():
        mine = [r for r in held_out if not r.asks and run.terms.name_of(r) == name]
        mine = mine or [r for r in run.feeds.probe([name], 0) if run.terms.name_of(r) == name]
        task[name] = up_to(mine, options.task_tokens)
    kept = {name: list(store) for name, store in data.retention.items()}
    return Probe(run, kept, {n: t for n, t in task.items() if t}, gradients=options.gradients)


def up_to(records: Iterable[Encoded], tokens: int) -> list[Encoded]:
    """The first records, up to a number of scored tokens."""
    found: list[Encoded] = []
    left = tokens
    for record in records:
        left -= record.scored
        if left < 0:
            break
        found.append(record)
    return found


def _of_terms(losses: dict[str, float]) -> dict[str, float]:
    """The terms' held-out losses among evaluation results."""
    mark = "eval/terms/"
    return {name.removeprefix(mark): v for name, v in losses.items() if name.startswith(mark)}


@dataclass(frozen=True)
class Guard:
    measure: str
    """Name of the measurement."""
    above: float
    then: Literal["warn", "stop", "raise"]
    term: str | None = None
    factor: float = 2.0

    def check(self, known: Sequence[str], schedule: Schedule) -> None:
        """Raise `ValueError` where it could never act: before the first step."""
        if self.measure not in known:
            raise ValueError(
                f"guard: nothing measures {self.measure!r}{nearest(self.measure, list(known))}"
            )
        if self.term is None:
            return
        if self.term not in schedule.weight:
            terms = list(schedule.weight)
            raise ValueError(f"guard: no term {self.term!r} to raise{nearest(self.term, terms)}")
        if not schedule.weight[self.term] > 0:
            raise ValueError(f"guard: the weight of {self.term} is 0, which no factor raises")
        try:
            schedule.raise_weight(self.term, 1.0)
        except ValueError as error:
            raise ValueError(f"guard: {error}") from error


def act(
    guards: Sequence[Guard],
    measured: Mapping[str, float],
    schedule: Schedule,
    say: Callable[[str], None],
) -> bool:
    """Do what the guards say about a probe's measurements; returns whether the run must stop."""
    stop = False
    for guard in guards:
        value = measured[guard.measure]
        if not value > guard.above:
            continue
        told = f"guard: {guard.measure} is {value:.4g}, above {guard.above:.4g}"
        if guard.then == "raise" and guard.term is not None:
            schedule.raise_weight(guard.term, guard.factor)
            told += f"; the weight of {guard.term} is now {schedule.share[guard.term]:.3f}"
        elif guard.then == "stop":
            told += "; the run stops here"
            stop = True
        say(told)
    return stop
