"""What a run will train on and when: terms, their feeds, and the schedule that chooses among them.

All of it is arithmetic on sections and on what the data hold; no weights are needed. Beside `build`,
this is the only file that sees a whole recipe: it makes the plan of one, the recipes of its stages,
and the recipe of a run on one term alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from onestage import models
from onestage.config import RecipeError, nearest
from onestage.data.feeds import Feeds
from onestage.data.kinds import KINDS
from onestage.data.mixture import MixedStream
from onestage.schedules import OWN, Schedule, active
from onestage.training import arriving
from onestage.training.choices import (
    Chosen,
    Weighing,
    name_terms,
    name_terms_by,
    objectives_of,
    refuse,
    resolve,
    schedule_of,
    weights_by_lambda,
)
from onestage.training.kept import Kept, check_replay, goals_of, replays
from onestage.training.mixtures import Mixing, share_of_terms
from onestage.training.monitor import Guarded
from onestage.training.read import Data
from onestage.training.recipe import Guard, Recipe
from onestage.training.stages import StageRun, Whole
from onestage.training.surgery import weighing as weighing_of
from onestage.training.terms import Terms

EVALUATIONS = 8
"""Times that a run of one term is evaluated."""
COUNTED = 1_000_000
"""Steps that are gone through before a run: half a second to two."""


@dataclass(frozen=True)
class Plan:
    """The arithmetic of a run, known before any model is loaded."""

    name: str
    """Of the schedule."""
    terms: Terms
    schedule: Schedule
    feeds: Feeds
    steps: int
    group: int
    """Completions of a problem."""
    longest: int
    """Tokens of a completion at most."""
    drawn: Mapping[str, float]
    """Of a mixed batch: which part of its records each term has on average."""

    def describe(self) -> str:
        """Schedule, steps, and what a batch of each term holds."""
        feeds = {"": self.feeds.together} if self.feeds.together else self.feeds.own
        drawn = [
            (f"{name}: " if name else "") + ", ".join(f"{s.share:.2f} {s.name}" for s in m.streams)
            for name, m in feeds.items()
            if m
        ]
        share = {name: f"{part:.2f}" for name, part in self.schedule.share.items() if part}
        weights = ", ".join(f"{name} {part}" for name, part in share.items())
        return (
            f"{self.steps:,} steps of {self.name} ({weights}); a batch has on average "
            + "; ".join(drawn)
        )

    def tokens(self) -> float:
        """Tokens that the run will train on: an estimate, and at most where a schedule decides."""
        draws = most_drawn(self.schedule, self.steps)
        together = self.feeds.together
        walks = [(together, self.steps)] if together else []
        walks += [] if together else [(self.feeds.own[name], draws[name]) for name in draws]
        return sum(
            mixture.until(batches)[stream.name] * self._size(stream)
            for mixture, batches in walks
            for stream in mixture.streams
        )

    def _size(self, stream: MixedStream) -> float:
        """Tokens of a record on average; of a sampled group at most."""
        tokens = stream.store.table.tokens / len(stream.store) * (2 if stream.beside else 1)
        return tokens if stream.reuse is None else self.group * (tokens + self.longest)


def make_plan(recipe: Recipe, data: Data) -> Plan:
    """Terms, schedule, feeds and number of steps; `ValueError` where they do not fit the data."""
    rollout, weighing = recipe.rollout, schedule_of(recipe.schedule)
    chosen = objectives_of(recipe.objective, recipe.data, rollout.max_completion_length)
    resolved = resolve(chosen, recipe.data, data)
    refuse(resolved)
    terms, given = name_terms(resolved), weighing.rule.weights
    if weighing.part is not None:
        given = weights_by_lambda(weighing.part, terms)
    if given:
        terms = name_terms_by(list(given), resolved, _known(chosen, data))
    mixed, watched = weighing.rule.batch == "mixed", recipe.watched
    arriving.check(recipe.data, watched, recipe.train, recipe.optimum, data, terms, mixed=mixed)
    mixing = Mixing(recipe.data, data, recipe.train, rollout.reuse)
    own = {name: mixing.own(terms, name) for name in terms.objectives}
    together, steps = mixing.together(terms) if mixed else (None, mixing.steps)
    # Where all draw one batch, a term weighs as much as it has of the records.
    drawn = share_of_terms(together, terms) if together else {}
    weight = drawn or given or dict.fromkeys(terms.objectives, 1.0)
    best = recipe.optimum.given | recipe.optimum.on_training if recipe.optimum else {}
    _check_bounds(weighing, terms, best, weight)
    keeps = {keep.name: keep for keep in recipe.keep}
    replayed = replays(keeps, terms)
    check_replay(replayed, weighing.name, weighing.rule)
    _check_raised(recipe.guard, replayed)
    goals = goals_of(weight, replayed)
    # A bound raises its term also from a given weight of 0: it is drawn, and compared, like the others.
    raised = () if drawn else replayed.values()
    weight = {term: one or float(term in raised) for term, one in weight.items()}
    if weighing.rule.combines not in ("", OWN):
        weighing_of(weighing.rule.combines)  # refused now where it is not installed
    schedule: Schedule = weighing.rule.for_run(goals, steps, recipe.train.seed, best)
    if keeps:
        schedule = Kept(schedule, weight, keeps, replayed)
    if any(guard.then == "raise" for guard in recipe.guard):
        schedule = Guarded(schedule)
    for name, part in schedule.share.items():
        if part and not own[name].streams:
            raise RecipeError(
                f"schedule: {name} has a weight but no stream to train on has records for it"
            )
        if part and schedule.feels and sum(s.share for s in own[name].streams) <= 1:
            raise RecipeError(
                f"schedule {weighing.name}: reads the noise of a gradient off two halves of a term's "
                f"records, and {name} has one a step; raise train.batch_size, or per_step of its streams"
            )
    own = {name: mixture for name, mixture in own.items() if mixture.streams}
    feeds = Feeds(own, together, schedule.measure_fraction)
    group, longest = rollout.num_generations, rollout.max_completion_length
    return Plan(weighing.name, terms, schedule, feeds, steps, group, longest, drawn)


def _known(chosen: Chosen, data: Data) -> list[str]:
    """What a schedule's weights may be about, in other data if not in these."""
    return [*data.train, *KINDS, *(name for name, _ in chosen.values())]


def _check_raised(guards: Sequence[Guard], replayed: Mapping[str, str]) -> None:
    """Refuse a guard on a term whose weight follows a bound, so that no factor raises it."""
    for guard in guards:
        if guard.term in replayed.values():
            raise RecipeError(
                f"guard: the weight of {guard.term} follows a bound of keep, which raises it by itself; "
                "leave the guard out, or let it stop the run"
            )


def _check_bounds(
    weighing: Weighing, terms: Terms, best: Mapping[str, float], weight: Mapping[str, float]
) -> None:
    """Refuse an f* of nothing, and a schedule that compares losses with an f* it was not told: that of
    rewards is not 0."""
    for term in best:
        if term not in weight:
            raise RecipeError(f"optimum: no term {term!r}{nearest(term, list(weight))}")
    if "optimum" not in (field.name for field in fields(weighing.rule)):
        return
    for name, objective in terms.objectives.items():
        if objective.lowest is None and name not in best:
            raise RecipeError(
                f"schedule {weighing.name}: compares losses with f*, and that of {name} is not 0: its "
                "loss is minus the mean reward (f* is minus the greatest), or has no lower bound; give "
                f"it, as in optimum: {{given: {{{name}: -1}}}}"
            )


def most_drawn(schedule: Schedule, steps: int) -> dict[str, int]:
    """The most batches of each term that so many steps train on.

    Counted where the schedule is a function of the step alone. One that takes losses in, or whose
    weights a guard may raise, may draw any term that has a weight in every step; so may one of a run
    that is too long to be counted.
    """
    counts = dict.fromkeys(schedule.weights, 0)
    if type(schedule).observe is not Schedule.observe or steps > COUNTED:
        return counts | dict.fromkeys(active(schedule.weights), steps)
    for step in range(steps):
        for term in active(schedule.weigh(step)):
            counts[term] += 1
    return counts


def most_measured(schedule: Schedule, steps: int) -> dict[str, int]:
    """The most batches of its own that each term is measured on before so many steps."""
    if schedule.measure != "own_batch":
        return {}
    return dict.fromkeys(active(schedule.weights), -(-steps // schedule.measure_every))


def stages_of(recipe: Recipe, out: Path) -> list[StageRun]:
    """The runs of a recipe, in order; one where it has no stages. Raises `RecipeError`."""
    if not recipe.stages:
        return [StageRun("", out, recipe, lora=recipe.model.lora)]
    from_adapter = models.adapter_base(recipe.model) is not None
    content = {
        name: _given(getattr(recipe, name)) for name in recipe.model_fields_set if name != "stages"
    }
    return Whole(content, recipe.stages, out.resolve(), from_adapter).runs()


def _given(section: Any) -> Any:
    """What was given of a section, as plain content; what is no section (rows, an objective) as it
    is."""
    if isinstance(section, list):
        return [_given(one) for one in section]
    return section.model_dump(exclude_unset=True) if isinstance(section, BaseModel) else section


def alone(recipe: Recipe, term: str, terms: Sequence[str], steps: int) -> Recipe:
    """The recipe of a run of one term alone, with everything that does not bear on it taken out."""
    held_out = any(stream.held_out for stream in recipe.data)
    every = max(1, steps // EVALUATIONS)
    train: dict[str, Any] = {
        "max_steps": steps,
        "num_train_epochs": None,
        **{"max_tokens": None, "delta_l1": 0.0},  # of the run that asks
        "eval_steps": every if held_out else None,
        "logging_steps": every,
        **{"save_steps": None, "average": "none", "report_to": [], "callbacks": []},
    }
    if recipe.schedule == "proportional" and len(terms) == 1:
        schedule: Any = "proportional"
    else:
        # A weight of 0 draws nothing, and the terms keep the names by which f* is told.
        schedule = {"name": "mix", "weights": {name: float(name == term) for name in terms}}
    return recipe.model_copy(
        update={
            "schedule": schedule,
            "train": recipe.train.model_copy(update=train),
            "description": "",
            **{"probe": None, "guard": [], "keep": [], "optimum": None, "stages": []},
            "evaluate": None,
        }
    )
