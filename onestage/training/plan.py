"""What a run will train on and when: terms, their feeds, and the schedule that chooses among them.

What is trained, a language model or a reward model, and what of a recipe goes with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from onestage import schedules as registry
from onestage.config import RecipeError, named, nearest
from onestage.data.feeds import Feeds
from onestage.data.kinds import FEEDBACK, KINDS, Kind
from onestage.data.mixture import MixedStream
from onestage.models import Model
from onestage.objectives import PLUGINS, Objective, make
from onestage.schedules import Schedule, active
from onestage.training.mixtures import own_mixture, share_of_terms, steps_of, together_mixture
from onestage.training.monitor import Guarded
from onestage.training.read import Data
from onestage.training.recipe import Recipe
from onestage.training.terms import Terms


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
        tokens = stream.store.table.tokens / len(stream.store)
        return tokens if stream.reuse is None else self.group * (tokens + self.longest)


@dataclass(frozen=True)
class _Choice:
    """A recipe's `schedule`, taken apart."""

    name: str
    rule: Schedule
    """Its options, and weights where they were given; not yet a run's."""
    part: Any
    """`lambda`, as given."""


def make_plan(recipe: Recipe, data: Data) -> Plan:
    """Terms, schedule, feeds and number of steps; `ValueError` where they do not fit the data."""
    chosen = schedule_of(recipe)
    given = chosen.rule.weights
    if chosen.part is not None:
        given = _lambda(chosen.part, make_terms(recipe, data))
    terms = make_terms(recipe, data, list(given) or None)
    mixed = chosen.rule.batch == "mixed"
    own = {name: own_mixture(recipe, data, terms, name) for name in terms.objectives}
    together, steps = together_mixture(recipe, data) if mixed else (None, steps_of(recipe))
    weight = share_of_terms(together, terms) if together else given
    weight = weight or dict.fromkeys(terms.objectives, 1.0)
    best = recipe.optimum.given | recipe.optimum.on_training if recipe.optimum else {}
    for term in best:
        if term not in weight:
            raise RecipeError(f"optimum: no term {term!r}{nearest(term, list(weight))}")
    _bounds(chosen, terms, best)
    schedule: Schedule = chosen.rule.for_run(weight, steps, recipe.train.seed, best)
    if any(guard.then == "raise" for guard in recipe.guard):
        schedule = Guarded(schedule)
    for name, part in schedule.share.items():
        if part and not own[name].streams:
            raise RecipeError(
                f"schedule: {name} has a weight but no stream to train on has records for it"
            )
    own = {name: mixture for name, mixture in own.items() if mixture.streams}
    feeds = Feeds(own, together, schedule.measure_fraction)
    group, longest = recipe.rollout.num_generations, recipe.rollout.max_completion_length
    return Plan(chosen.name, terms, schedule, feeds, steps, group, longest)


def most_drawn(schedule: Schedule, steps: int) -> dict[str, int]:
    """The most batches of each term that so many steps train on.

    Counted where the schedule is a function of the step alone. One that takes losses in, or whose
    weights a guard may raise, may draw any term that has a weight in every step.
    """
    counts = dict.fromkeys(schedule.weights, 0)
    if type(schedule).observe is not Schedule.observe:
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


def _bounds(chosen: _Choice, terms: Terms, best: Mapping[str, float]) -> None:
    """A schedule that compares losses with f* must be told that of rewards: it is not 0."""
    if "optimum" not in (field.name for field in fields(chosen.rule)):
        return
    for name, objective in terms.objectives.items():
        if objective.lowest is None and name not in best:
            raise RecipeError(
                f"schedule {chosen.name}: the loss of {name} is minus the mean reward, so its f* is "
                f"minus the greatest reward; give it, as in optimum: {{given: {{{name}: -1}}}}"
            )


def schedule_of(recipe: Recipe) -> _Choice:
    """The schedule with its options; a mistyped name or option is refused here."""
    if isinstance(recipe.schedule, Schedule):
        return _unmixed(_Choice(type(recipe.schedule).__name__, recipe.schedule, None))
    given = {"name": recipe.schedule} if isinstance(recipe.schedule, str) else dict(recipe.schedule)
    name = given.pop("name", None)
    if not isinstance(name, str):
        raise RecipeError(
            f"schedule: expected a name or {{name: ..., weights: ...}}, got {recipe.schedule!r}"
        )
    if "optimum" in given:
        raise RecipeError("schedule: f* stands in a section of its own, optimum: {given: {...}}")
    weights, part = given.pop("weights", None), given.pop("lambda", None)
    rule = registry.make({"name": name, **given})
    if weights is not None and part is not None:
        raise RecipeError("schedule: give weights or lambda, not both")
    if weights is not None and not (isinstance(weights, dict) and _all_numbers(weights)):
        raise RecipeError(f"schedule.weights: expected {{term: number}}, got {weights!r}")
    return _unmixed(_Choice(name, replace(rule, weights=weights or {}), part))


def _unmixed(chosen: _Choice) -> _Choice:
    if (chosen.rule.weights or chosen.part is not None) and chosen.rule.batch == "mixed":
        raise RecipeError(
            f"schedule {chosen.name} takes its weights from the data: give the streams of data a weight"
        )
    return chosen


def _all_numbers(weights: Mapping[str, Any]) -> bool:
    return all(isinstance(w, int | float) and not isinstance(w, bool) for w in weights.values())


def _lambda(given: Any, terms: Terms) -> dict[str, float]:
    """`lambda: {dpo: 0.25}`: that term's weight; the other one, of two, has the rest."""
    if not (isinstance(given, dict) and len(given) == 1 and _all_numbers(given)):
        raise RecipeError(f"schedule.lambda: expected {{term: number in [0, 1]}}, got {given!r}")
    ((term, value),) = given.items()
    if not 0 <= value <= 1:
        raise RecipeError(f"schedule.lambda: must lie in [0, 1], got {value} for {term}")
    names = list(terms.objectives)
    if term not in names or len(names) != 2:
        raise RecipeError(
            f"schedule.lambda: weighs one of two terms, got {term!r} and the terms {names}"
        )
    return {name: float(value) if name == term else 1.0 - value for name in names}


def make_terms(recipe: Recipe, data: Data, keys: list[str] | None = None) -> Terms:
    """The objectives, and which records each is given; refused where one cannot use a kind.

    `keys`: names of streams, kinds or objectives, each of which becomes a term; default: every
    distinct objective is one.
    """
    chosen = choices(recipe)
    paired = {stream.name for stream in recipe.data if stream.feedback == "pair"}
    objectives: dict[str, Objective] = {}
    default: dict[str, Objective] = {}
    """The terms that there are without keys; a key may name one of these, too."""
    term_of: dict[tuple[str, Kind], str] = {}
    for part in (data.train, data.held_out):
        for stream, store in part.items():
            for given in store.kinds():
                kind = "pair" if FEEDBACK[given].asked and stream in paired else given
                name, objective = _choice(chosen, stream, kind)
                if kind not in objective.kinds:
                    raise RecipeError(
                        f"objective {name} cannot use {kind} records (stream {stream}); "
                        f"it can use {', '.join(sorted(objective.kinds))}"
                        + ("; set min_score to imitate high scores" if name == "sft" else "")
                    )
                term = _term(default, name, objective, f"{name}-{stream}-{kind}")
                if keys is not None:
                    term = _key(keys, (stream, kind, term, name))
                    if objectives.setdefault(term, objective) != objective:
                        raise RecipeError(
                            f"schedule.weights: {term} is one term but has several objectives; "
                            "weigh streams or kinds instead"
                        )
                term_of[stream, kind] = term_of[stream, given] = term
    if keys is None:
        objectives = default
    else:
        _all_used(keys, objectives, [*data.train, *KINDS, *(name for name, _ in chosen.values())])
    order = [key for key in keys or objectives if key in objectives]
    return Terms({name: objectives[name] for name in order} | objectives, term_of)


def _term(objectives: dict[str, Objective], name: str, objective: Objective, longer: str) -> str:
    """The term of an objective: the one that has it already, or a new one."""
    term = next((t for t, o in objectives.items() if o == objective), None)
    if term is None:
        term = name if name not in objectives else longer
        objectives[term] = objective
    return term


def _key(keys: list[str], names: tuple[str, str, str, str]) -> str:
    """The key of some records: the first of their names (stream, kind, term, objective) that is one."""
    for name in names:
        if name in keys:
            return name
    stream, kind, _, objective = names
    raise RecipeError(
        f"schedule.weights: none is given for {kind} records of stream {stream} ({objective}); "
        f"there are {keys}"
    )


def _all_used(keys: list[str], objectives: Mapping[str, Objective], known: list[str]) -> None:
    for key in keys:
        if key not in objectives:
            allowed = sorted(set(known))
            why = "has no records" if key in allowed else f"is unknown{nearest(key, allowed)}"
            raise RecipeError(
                f"schedule.weights: {key!r} {why}; weigh objectives, streams or kinds of the data"
            )


def choices(recipe: Recipe) -> dict[str, tuple[str, Objective]]:
    """Objective by stream name, kind, or "" for everything."""
    given, longest = recipe.objective, recipe.rollout.max_completion_length
    if isinstance(given, str) or "name" in given:
        return fitting(recipe, {"": _objective(given, longest)})
    allowed = [*KINDS, *(stream.name for stream in recipe.data)]
    for key in given:
        if key not in allowed:
            raise RecipeError(f"objective: {key!r} is no kind or stream{nearest(key, allowed)}")
    return fitting(recipe, {key: _objective(value, longest) for key, value in given.items()})


def _objective(given: Any, longest: int) -> tuple[str, Objective]:
    return named(given, "objective")[0], make(given, longest)


def _choice(
    chosen: Mapping[str, tuple[str, Objective]], stream: str, kind: Kind
) -> tuple[str, Objective]:
    for key in (stream, kind, ""):
        if key in chosen:
            return chosen[key]
    raise RecipeError(
        f"objective: none is given for {kind} records of stream {stream}; the map has {sorted(chosen)}"
    )


Chosen = TypeVar("Chosen", bound=Mapping[str, tuple[str, Objective]])


def fitting(recipe: Recipe, chosen: Chosen) -> Chosen:
    """The objectives of a recipe (by stream, kind or ""), if they train its sort of model.

    Raises `RecipeError` where one does not, or where the recipe asks a reward model for what only a
    language model has: text, log-probabilities, a reference.
    """
    task = recipe.model.task
    for name, objective in chosen.values():
        if not _fits(objective, recipe.model):
            mine = ", ".join(n for n in PLUGINS.built_in() if _fits(make(n), recipe.model))
            what = "rewards" if "reward" in objective.needs else "log-probabilities"
            raise RecipeError(
                f"objective {name} is about {what}, which a model of model.task: {task} does not give; "
                f"with it there are {mine}"
            )
    if task == "reward":
        _judges_only(recipe)
    return chosen


def _fits(objective: Objective, model: Model) -> bool:
    """Whether a model of that sort gives what the objective needs; the rest others provide."""
    return objective.needs - {"reference", "worked"} <= model.gives


def _judges_only(recipe: Recipe) -> None:
    for stream in recipe.data:
        if stream.reward is not None:
            raise RecipeError(
                f"data.{stream.name}.reward: a reward model writes no answers that could be judged; "
                "train it on given ones (pair, group, label, score)"
            )
    if recipe.reference != "start":
        raise RecipeError("reference: the loss of a reward model compares with no other model")
    probe = recipe.probe
    if probe and (
        probe.retention or ("task_tokens" in probe.model_fields_set and probe.task_tokens)
    ):
        raise RecipeError(
            "probe: retention and task_tokens measure log-probabilities, which a reward model does not "
            "have; of its probes only gradients are left"
        )
