"""Which objective each record is given to, and which schedule weighs them: from a recipe's words.

Resolve (every kind of every stream to an objective), refuse (what an objective or a model cannot
use), and name (the terms that schedules, metrics and gaps are about).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from onestage import models, objectives, schedules
from onestage.config import RecipeError, named, nearest
from onestage.data.kinds import FEEDBACK, KINDS, Kind
from onestage.data.stream import Stream
from onestage.models import Model
from onestage.objectives import BESIDE_LOGP, Objective
from onestage.objectives import _laws as objective_laws
from onestage.rollout.rollout import Rollout
from onestage.schedules import Schedule
from onestage.schedules import _laws as schedule_laws
from onestage.training.distributed import Distributed, of_launcher
from onestage.training.keep import Keep
from onestage.training.read import Data
from onestage.training.recipe import Probe, Train
from onestage.training.terms import Terms, numbers_of

Chosen = Mapping[str, tuple[str, Objective]]
"""Name and objective by stream name, kind, or "" for everything."""
Resolved = Mapping[tuple[str, Kind], tuple[Kind, str, Objective]]
"""By stream and kind of its records: the kind as objectives see it, name and objective."""


IN_PARTS = ("adamw_torch", "adamw_torch_fused", "adagrad", "rmsprop", "sgd")
"""Optimisers that step each number by itself, so that they can step parts."""


@dataclass(frozen=True)
class Weighing:
    """A recipe's `schedule`, taken apart."""

    name: str
    rule: Schedule
    """Its options, and weights where they were given; not yet a run's."""
    part: Any = None
    """`lambda`, as given."""


def objectives_of(given: Any, streams: Sequence[Stream], longest: int) -> Chosen:
    """The objectives of a recipe. `longest`: its `max_completion_length`, which some of them know.

    Raises `RecipeError` for a key that is no kind or stream, and `ValueError` for an unknown name or
    option.
    """
    if not isinstance(given, str | Objective | Mapping):
        raise RecipeError(
            "objective: expected a name, a table {name: ..., options}, or a map from kind or stream "
            f"name to either, got {given!r}"
        )
    if isinstance(given, str | Objective) or "name" in given:
        return {"": _objective(given, longest)}
    allowed = [*KINDS, *(stream.name for stream in streams)]
    for key in given:
        if key not in allowed:
            raise RecipeError(f"objective: {key!r} is no kind or stream{nearest(key, allowed)}")
    return {key: _objective(value, longest) for key, value in given.items()}


def taught_by(chosen: Chosen, streams: Sequence[Stream]) -> dict[str, bool]:
    """The streams whose answers an objective has read behind the solution, and which give hints."""
    found = {}
    for stream in streams:
        key = next((key for key in (stream.name, "check", "") if key in chosen), None)
        if key is not None and "taught" in chosen[key][1].needs:
            found[stream.name] = stream.hint != "none"
    return found


def _objective(given: Any, longest: int) -> tuple[str, Objective]:
    name = _name_of(given) if isinstance(given, Objective) else named(given, "objective")[0]
    objective_laws.require_read(objectives.make(given), name)  # without what a run fills in
    return name, objectives.make(given, longest)


def _name_of(made: Any) -> str:
    """What something that was made in Python is called: one of ours by its file, as in recipes."""
    room, _, file = type(made).__module__.rpartition(".")
    return file if room.startswith("onestage.") else type(made).__name__


def schedule_of(given: Any) -> Weighing:
    """The schedule with its options; `RecipeError` or `ValueError` for a name or option that is
    unknown."""
    if isinstance(given, Schedule):
        return _unmixed(Weighing(_name_of(given), given))
    options = {"name": given} if isinstance(given, str) else given
    options = dict(options) if isinstance(options, Mapping) else {}
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise RecipeError(
            f"schedule: expected a name or {{name: ..., weights: ...}}, got {given!r}"
        )
    if "optimum" in options:
        raise RecipeError("schedule: f* stands in a section of its own, optimum: {given: {...}}")
    weights, part = options.pop("weights", None), options.pop("lambda", None)
    rule = schedules.make({"name": name, **options})
    if weights is not None and part is not None:
        raise RecipeError("schedule: give weights or lambda, not both")
    if weights is not None and not (isinstance(weights, dict) and _all_numbers(weights)):
        raise RecipeError(f"schedule.weights: expected {{term: number}}, got {weights!r}")
    return _unmixed(Weighing(name, replace(rule, weights=weights or {}), part))


def _unmixed(found: Weighing) -> Weighing:
    if (found.rule.weights or found.part is not None) and found.rule.batch == "mixed":
        raise RecipeError(
            f"schedule {found.name} takes its weights from the data: give the streams of data a weight"
        )
    schedule_laws.require_read(found.rule, found.name)
    return found


def _all_numbers(weights: Mapping[str, Any]) -> bool:
    return all(isinstance(w, int | float) and not isinstance(w, bool) for w in weights.values())


def weights_by_lambda(given: Any, terms: Terms) -> dict[str, float]:
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


def resolve(chosen: Chosen, streams: Sequence[Stream], data: Data) -> Resolved:
    """The objective of every kind of records that the streams hold; `RecipeError` where none is
    given."""
    paired = {stream.name for stream in streams if stream.feedback == "pair"}
    found: dict[tuple[str, Kind], tuple[Kind, str, Objective]] = {}
    # Held-out rows, too: a kind that is only evaluated needs an objective as well.
    for part in (data.train, data.held_out):
        for stream, store in part.items():
            for kind in store.counts():
                # What objectives are given of such a problem: its best and its worst answer.
                seen: Kind = "pair" if FEEDBACK[kind].asked and stream in paired else kind
                key = next((key for key in (stream, seen, "") if key in chosen), None)
                if key is None:
                    raise RecipeError(
                        f"objective: none is given for {seen} records of stream {stream}; the map has "
                        f"{sorted(chosen)}"
                    )
                found[stream, kind] = (seen, *chosen[key])
    return found


def refuse(resolved: Resolved) -> None:
    """Raise `RecipeError` where an objective cannot use a kind of records it is given."""
    for (stream, _), (kind, name, objective) in resolved.items():
        if kind not in objective.kinds:
            raise RecipeError(
                f"objective {name} cannot use {kind} records (stream {stream}); "
                f"it can use {', '.join(sorted(objective.kinds))}"
                + ("; set min_score to imitate high scores" if name == "sft" else "")
            )


def name_terms(resolved: Resolved) -> Terms:
    """Every distinct objective is a term."""
    found: dict[str, Objective] = {}
    term_of: dict[tuple[str, Kind], str] = {}
    for (stream, given), (kind, name, objective) in resolved.items():
        term = _term(found, name, objective, f"{name}-{stream}-{kind}")
        term_of[stream, given] = term_of[stream, kind] = term
    return Terms(found, term_of)


def _term(found: dict[str, Objective], name: str, objective: Objective, longer: str) -> str:
    """The term of an objective: the one that has it already, or a new one."""
    term = next((t for t, o in found.items() if o == objective), None)
    if term is None:
        term = name if name not in found else longer
        found[term] = objective
    return term


def name_terms_by(keys: Sequence[str], resolved: Resolved, known: Sequence[str]) -> Terms:
    """Every key (a stream, kind, term or objective, the first that is one) is a term.

    `known`: other names that would be keys of some data. Raises `RecipeError` for records without a key,
    for a key without records, and for one with several objectives.
    """
    plain = name_terms(resolved)
    found: dict[str, Objective] = {}
    term_of: dict[tuple[str, Kind], str] = {}
    for (stream, given), (kind, name, objective) in resolved.items():
        names = (stream, kind, plain.term_of[stream, given], name)
        term = next((one for one in names if one in keys), None)
        if term is None:
            raise RecipeError(
                f"schedule.weights: none is given for {kind} records of stream {stream} ({name}); "
                f"there are {list(keys)}"
            )
        if found.setdefault(term, objective) != objective:
            raise RecipeError(
                f"schedule.weights: {term} is one term but has several objectives; "
                "weigh streams or kinds instead"
            )
        term_of[stream, given] = term_of[stream, kind] = term
    for key in keys:
        if key not in found:
            allowed = sorted(set(known))
            why = "has no records" if key in allowed else f"is unknown{nearest(key, allowed)}"
            raise RecipeError(
                f"schedule.weights: {key!r} {why}; weigh objectives, streams or kinds of the data"
            )
    return Terms({key: found[key] for key in keys}, term_of)


def check_needs(chosen: Chosen, model: Model) -> None:
    """Raise `RecipeError` where an objective needs what the model does not give."""
    for name, objective in chosen.values():
        if not _fits(objective, model):
            mine = (n for n in objectives.PLUGINS.built_in() if _fits(objectives.make(n), model))
            what = "rewards" if "reward" in objective.needs else "log-probabilities"
            raise RecipeError(
                f"objective {name} is about {what}, which a model of model.task: {model.task} does not "
                f"give; with it there are {', '.join(mine)}"
            )


def _fits(objective: Objective, model: Model) -> bool:
    """Whether such a model gives what the objective needs; the rest others provide."""
    return objective.needs - objectives.GIVEN <= model.gives


def check_judge(streams: Sequence[Stream], reference: str, probe: Probe | None) -> None:
    """Raise `RecipeError` where a reward model is asked for what only a language model has."""
    for stream in streams:
        if stream.reward is not None:
            raise RecipeError(
                f"data.{stream.name}.reward: a reward model writes no answers that could be judged; "
                "train it on given ones (pair, group, label, score)"
            )
    if reference != "start":
        raise RecipeError("reference: the loss of a reward model compares with no other model")

    if probe and (
        probe.retention or ("task_tokens" in probe.model_fields_set and probe.task_tokens)
    ):
        raise RecipeError(
            "probe: retention and task_tokens measure log-probabilities, which a reward model does not "
            "have; of its probes only gradients are left"
        )


def check_groups(terms: Terms, section: Rollout) -> None:
    """Refuse groups that cannot teach: objectives that compare an answer with the others of its group
    need others, and other ones. Raises `RecipeError`."""
    for (source, kind), name in terms.term_of.items():
        objective = terms.objectives[name]
        if not (FEEDBACK[kind].asked and objective.relative):
            continue
        why = ""
        if section.num_generations < 2:
            why = f"rollout.num_generations {section.num_generations}: give at least 2"
        elif section.temperature == 0:
            why = "rollout.temperature 0, which makes them all the same: give one above 0"
        if why:
            raise RecipeError(
                f"data {source}: {type(objective).__name__} compares the answers to a problem with each "
                f"other, and there would be nothing to learn with {why}, or choose an objective with a "
                "baseline of its own (reinforce, ppo)"
            )


def check_terms(terms: Terms, section: Rollout, asked: Distributed) -> None:
    """Raise `RecipeError` for objectives that cannot do their work with the answers or the devices they
    are to have."""
    check_groups(terms, section)
    check_distributions(terms, asked)
    numbers_of(terms)


def check_distributions(terms: Terms, asked: Distributed) -> None:
    """Raise `RecipeError` for what was made for weights that lie whole, and not for parts: whole
    distributions that are compared, and answers that are read twice."""
    comparing = sorted(n for n, o in terms.objectives.items() if o.needs & BESIDE_LOGP)
    if comparing and of_launcher(asked, os.environ).sharding != "none":
        raise RecipeError(
            f"objective {', '.join(comparing)} compares whole distributions with the reference or reads "
            "answers twice, which needs weights that lie whole on each device: set "
            "distributed.sharding: none"
        )


def check_saving(model: Model, train: Train) -> None:
    """Raise `RecipeError` for a model that cannot be written from a copy."""
    if train.async_save and model.adapter == "stack":
        raise RecipeError(
            "train.async_save: a model of stacked adapters (model.adapter: stack) is written as their "
            "sum, for which the run must stand still; leave async_save out"
        )


def check_kept(keeps: Sequence[Keep], asked: Distributed) -> None:
    """Raise `RecipeError` for what cannot hold a bound where the weights lie in parts."""
    instead = {"kl": "replay", "fisher": "anchor"}
    odd = [keep for keep in keeps if keep.means in instead]
    if odd and of_launcher(asked, os.environ).sharding != "none":
        by = odd[0].means
        raise RecipeError(
            f"keep {odd[0].name}: by: {by} was never tried with weights in parts; take by: "
            f"{instead[by]}, or distributed.sharding: none"
        )


def check_sharding(asked: Distributed, model: Model, train: Train) -> None:
    """Raise `RecipeError` for what cannot lie in parts on many devices."""
    section = of_launcher(asked, os.environ)
    if section.sharding == "none":
        odd = section.model_fields_set & {"reshard_after_forward", "cpu_offload"}
        if odd:
            raise RecipeError(
                f"distributed: {', '.join(sorted(odd))} would do nothing without parts; set "
                "sharding: full"
            )
        return
    why = f"distributed.sharding: {section.sharding}"
    if model.uncut:
        raise RecipeError(f"{why} does not cut {model.uncut}")
    if k := models.preserved_in(model):
        raise RecipeError(
            f"{why} does not cut the adapter in {model.name}, whose update is kept off {k} directions; "
            "set sharding: none, or remove its preserved.json to train on without"
        )
    if train.optim not in IN_PARTS:
        raise RecipeError(
            f"{why} needs an optimiser that steps each number by itself ({', '.join(IN_PARTS)}), and "
            f"train.optim is {train.optim}"
        )
