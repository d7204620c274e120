"""From a recipe to feeds whose problems are answered: engine, rewards, hints, and the reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

from accelerate import Accelerator

from onestage.batches import reuse_of
from onestage.options import DataOptions
from onestage.planning import Plan
from onestage.policy.policy import Policy
from onestage.policy.start import StartWeights
from onestage.recipe import Recipe, RecipeError, named
from onestage.rollout.answering import Answering
from onestage.rollout.feeds import OnlineFeeds
from onestage.rollout.groups import Given, Group, worked_answer
from onestage.rollout.hints import registry as hints
from onestage.rollout.judging import Judging, Online
from onestage.rollout.kept import Keeper, Reference
from onestage.rollout.rewards import registry as rewards
from onestage.rollout.rewards.checker import Checker
from onestage.rollout.rewards.contract import Reward
from onestage.rollout.samplers import registry as samplers
from onestage.rollout.samplers.contract import Decoding
from onestage.streams.checks import About
from onestage.streams.encoded import Encoded
from onestage.streams.feeds import Feeds
from onestage.terms import Terms
from onestage.wiring import Data

LOOKED_AT = 64
"""Problems of each stream that rewards look at before the first step."""


def asks(recipe: Recipe) -> list[DataOptions]:
    """The streams whose problems the policy answers."""
    return [stream for stream in recipe.data if stream.reward is not None]


def wants_reference(recipe: Recipe, terms: Terms) -> bool:
    """Whether sampled responses are compared with the reference."""
    wanted = {
        terms.term_of[s.name, "check"] for s in asks(recipe) if (s.name, "check") in terms.term_of
    }
    return any(terms.objectives[name].needs_reference for name in wanted)


def make_streams(recipe: Recipe) -> dict[str, Online]:
    """Rewards and hint rule of each stream; `RecipeError` for a name or option that is unknown."""
    found = {}
    for stream in asks(recipe):
        try:
            rule = hints.make(*named(stream.hint, "hint"))
            found[stream.name] = Online(_rewards(stream.reward), rule, stream.feedback)
        except ValueError as error:
            raise RecipeError(f"data.{stream.name}: {error}") from error
    return found


def close(streams: Mapping[str, Online]) -> None:
    for stream in streams.values():
        stream.close()


def check_rewards(streams: Mapping[str, Online], data: Data) -> None:
    """Refuse rewards that the problems of the data have no facts for."""
    for part in (data.train, data.held_out):
        for name, stream in streams.items():
            for number in range(min(LOOKED_AT, len(part[name]))) if name in part else ():
                _check_problem(part[name][number], stream)


def _check_problem(record: Encoded, stream: Online) -> None:
    if not record.asks:
        return
    for name, _, reward in stream.rewards:
        try:
            reward.check(About.load(record.about).facts)
        except ValueError as error:
            raise RecipeError(
                f"data {record.source}, {record.id}: reward {name}: {error}"
            ) from error


def judge_worked(
    recipe: Recipe, streams: Mapping[str, Online], data: Data, tokenizer: Any
) -> dict[str, tuple[int, int]]:
    """Of the first worked answers of each stream: how many its own checkers call right, and how many
    there are. A reward that does not like them will not like the policy's answers either."""
    found = {}
    for name, stream in streams.items():
        store = data.train.get(name)
        if store is None or not all(isinstance(r, Checker) for _, _, r in stream.rewards):
            continue  # models and paid judges are not asked before the run
        records = [store[n] for n in range(min(LOOKED_AT, len(store)))]
        groups = [Group(record, Given(), ()) for record in records if len(record.paths) > 1]
        for group in groups:
            group.answers = worked_answer(group.record, group.about, tokenizer)
        Judging({name: stream})(groups)
        right = sum(group.totals[0] >= recipe.rollout.success_at for group in groups)
        found[name] = (right, len(groups))
    return found


def make_feeds(
    recipe: Recipe,
    streams: Mapping[str, Online],
    accelerator: Accelerator,
    policy: Policy,
    tokenizer: Any,
    plan: Plan,
    other: Policy | None,
    say: Callable[[str], None],
) -> Feeds:
    """The plan's feeds, answering where the recipe has problems. `other`: a reference that is not the
    model the run starts from."""
    if not streams:
        return plan.feeds
    options = recipe.rollout
    start = StartWeights(policy).in_place if options.policy == "start" else None
    wanted = wants_reference(recipe, plan.terms)
    reference = _reference(policy, other, start) if wanted else None
    try:
        engine = samplers.make(*named(options.engine, "engine"), policy.model, tokenizer)
    except ValueError as error:
        raise RecipeError(f"rollout.engine: {error}") from error
    drawn = options.model_dump(include={"max_completion_length", "top_p", "top_k", "min_p"})
    answering = Answering(
        sampler=engine,
        judging=Judging(streams, options.missing_eos_penalty, options.on_failure),
        keeper=Keeper(policy, plan.terms, reference, accelerator, recipe.train.row_budget),
        tokenizer=tokenizer,
        say=say,
        how=Decoding(temperature=options.temperature, **drawn),
        eval_how=Decoding(temperature=options.eval_temperature, **drawn),
        count=options.num_generations,
        eval_count=options.eval_generations,
        seed=recipe.train.seed,
        again=reuse_of(recipe).steps > 1,
        success_at=options.success_at,
        alarm_after=options.alarm_after,
        start=start,
    )
    return OnlineFeeds(plan.feeds, answering, reuse_of(recipe))


def _reference(policy: Policy, other: Policy | None, start: Reference | None) -> Reference:
    """Another model, or this one as it was before the run."""
    if other is not None:
        return lambda: nullcontext(other)
    return start or StartWeights(policy).in_place


def _rewards(given: Any) -> list[tuple[str, float, Reward]]:
    found: list[tuple[str, float, Reward]] = []
    for one in given if isinstance(given, list) else [given]:
        name, options = named(one, "reward")
        weight = options.pop("weight", 1.0)
        if not isinstance(weight, int | float) or isinstance(weight, bool):
            raise RecipeError(f"reward {name}: weight must be a number, got {weight!r}")
        known = {other for other, _, _ in found}
        label = name if name not in known else f"{name}{len(found) + 1}"
        found.append((label, float(weight), rewards.make(name, options)))
    return found
