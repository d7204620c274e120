"""Sections of a recipe become what answers problems: names turn to rewards, hint rules and an engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from accelerate import Accelerator

from onestage.config import RecipeError, named
from onestage.data.encoded import Encoded, ProblemFacts
from onestage.data.kinds import FEEDBACK
from onestage.data.store import Store
from onestage.data.stream import Stream
from onestage.models.policy import Policy
from onestage.models.sharding import whole
from onestage.rollout import engines, hints, rewards
from onestage.rollout.answer import Answering, Remember
from onestage.rollout.group import Group, HintChosen, worked_answer
from onestage.rollout.problems import Problems, reward
from onestage.rollout.rewards import Reward
from onestage.rollout.rewards._checker import Checker
from onestage.rollout.rollout import Rollout
from onestage.rollout.stock import Stock
from onestage.runfolder import Say

LOOKED_AT = 64
"""Problems of each stream that rewards look at before the first step."""


def make(
    section: Rollout,
    problems: Mapping[str, Problems],
    policy: Policy,
    tokenizer: Any,
    *,
    accelerator: Accelerator,
    remember: Remember,
    worked: Callable[[Encoded], bool],
    taught: Callable[[Encoded], bool],
    start: Callable[[], AbstractContextManager[Policy]] | None,
    seed: int,
    say: Say,
) -> Stock:
    """What answers the problems of a run. Raises `RecipeError` for an engine that cannot be had.

    `remember`: what training keeps of answers (`Remember`). `worked`: whether a problem's worked answer
    joins its sampled ones; `taught`: whether these are also read behind a prompt that holds it. `start`:
    the policy as it was before the run, where that is who answers.
    """
    try:
        with whole(policy):  # it may try the model
            engine = engines.make(section.engine, policy.model, tokenizer)
    except ValueError as error:
        raise RecipeError(f"rollout.engine: {error}") from error
    answering = Answering(
        section=section,
        problems=problems,
        engine=engine,
        policy=policy,
        tokenizer=tokenizer,
        accelerator=accelerator,
        remember=remember,
        worked=worked,
        taught=taught,
        start=start,
        seed=seed,
        say=say,
    )
    answering.say_remarks()
    return Stock(answering, section.reuse)


def check_engine(section: Rollout) -> None:
    """Raise `RecipeError` for an engine or option that is unknown, before there is a policy to run."""
    try:
        engines.PLUGINS.check(section.engine)
    except ValueError as error:
        raise RecipeError(f"rollout.engine: {error}") from error


def problems_of(streams: Iterable[Stream]) -> dict[str, Problems]:
    """Rewards and hint rule of each stream whose problems the policy answers.

    Raises `RecipeError` for a name or option that is unknown.
    """
    found = {}
    for stream in streams:
        if stream.reward is None:
            continue
        try:
            rule = hints.make(stream.hint)
            found[stream.name] = Problems(_rewards(stream.reward), rule, stream.feedback)
        except ValueError as error:
            raise RecipeError(f"data.{stream.name}: {error}") from error
    return found


def _rewards(given: Any) -> list[tuple[str, float, Reward]]:
    """Label, weight and reward of each; a name that stands twice is numbered."""
    found: list[tuple[str, float, Reward]] = []
    for one in given if isinstance(given, list) else [given]:
        name, weight, reward = _weighted(one)
        known = {other for other, _, _ in found}
        label = name if name not in known else f"{name}{len(found) + 1}"
        found.append((label, weight, reward))
    return found


def _weighted(given: Any) -> tuple[str, float, Reward]:
    if isinstance(given, Reward):
        return type(given).__name__.lower(), 1.0, given
    name, options = named(given, "reward")
    weight = options.pop("weight", 1.0)
    is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not (is_number and math.isfinite(weight)):
        raise RecipeError(f"reward {name}: weight must be a finite number, got {weight!r}")
    return name, float(weight), rewards.make({"name": name, **options})


def close(problems: Mapping[str, Problems]) -> None:
    """Let go of what the rewards hold."""
    for stream in problems.values():
        stream.close()


def check(problems: Mapping[str, Problems], *parts: Mapping[str, Store]) -> None:
    """Refuse rewards that the problems of the data (train, held out) have no facts for.

    Raises `RecipeError` that names the record.
    """
    for part in parts:
        for name, stream in problems.items():
            if name in part:
                _check_problems(part[name], stream)


def _check_problems(store: Store, stream: Problems) -> None:
    asked = store.numbers([kind for kind in store.counts() if FEEDBACK[kind].asked])
    for number in map(int, asked):
        facts = ProblemFacts.load(store.about(number)).facts
        for name, _, judge in stream.rewards:
            try:
                judge.check(facts)
            except ValueError as error:
                raise RecipeError(
                    f"data {store.table.source}, {store.name(number)}: reward {name}: {error}"
                ) from error


def judge_worked(
    problems: Mapping[str, Problems],
    data: Mapping[str, Store],
    tokenizer: Any,
    *,
    success_at: float,
) -> dict[str, tuple[int, int]]:
    """Of the first worked answers of each stream: how many its own checkers call right, and how many
    there are. A reward that does not like them will not like the policy's answers either."""
    found = {}
    for name, stream in problems.items():
        store = data.get(name)
        if store is None or not all(isinstance(one, Checker) for _, _, one in stream.rewards):
            continue  # models and paid judges are not asked before the run
        records = [store[n] for n in range(min(LOOKED_AT, len(store)))]
        groups = [Group(record, HintChosen(), ()) for record in records if len(record.paths) > 1]
        for group in groups:
            group.answers = worked_answer(group.record, group.about, tokenizer)
        reward(groups, {name: stream})
        right = sum(group.totals[0] >= success_at for group in groups)
        found[name] = (right, len(groups))
    return found
