"""A plan and a loaded model become a run.

From a recipe to the parts of a run: the one place where names become objects.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

from onestage.config import RecipeError, named
from onestage.data.encoded import Encoded
from onestage.data.feeds import Feeds
from onestage.data.options import DataOptions
from onestage.data.tokenize import About
from onestage.models.average import Average
from onestage.models.penalty import DeltaL1
from onestage.models.policy import Policy
from onestage.models.reference import InitialWeights, ReferenceCache
from onestage.models.reward_model import policy_of
from onestage.models.weights import Loaded
from onestage.rollout import engines as samplers
from onestage.rollout import hints, rewards
from onestage.rollout.answer import Answering
from onestage.rollout.engines import Decoding
from onestage.rollout.feeds import OnlineFeeds
from onestage.rollout.group import Given, Group, worked_answer
from onestage.rollout.judge import Judging, Online
from onestage.rollout.rewards import Reward
from onestage.rollout.rewards._checker import Checker
from onestage.runfolder import Say
from onestage.training.callbacks import PLUGINS, Callback
from onestage.training.callbacks.tracker import Tracker
from onestage.training.loop import Run
from onestage.training.mixtures import reuse_of
from onestage.training.optimizer import Clipping, make_optimizer
from onestage.training.plan import Plan
from onestage.training.read import Data
from onestage.training.recipe import Recipe, TrainOptions
from onestage.training.sampled import Reference, Remember
from onestage.training.terms import Terms


def make_run(
    recipe: Recipe,
    streams: Mapping[str, Online],
    accelerator: Accelerator,
    loaded: Loaded,
    plan: Plan,
    reference: ReferenceCache | None,
    other: Policy | None,
    say: Say,
    out: Path,
) -> Run:
    """The parts of a run put together, ready for the loop. `other`: a reference that is not the model
    the run starts from."""
    options, policy = recipe.train, policy_of(loaded.model)
    if "value" in plan.terms.needs:
        policy.add_value_head()
    optimizer, learning_rate = make_optimizer(options, policy, plan.steps)
    alone = plan.schedule.one_at_a_time
    clip = ("common" if alone else "step") if options.clip == "auto" else options.clip
    average = None
    if options.average != "none":
        start = round(options.average_start * plan.steps) if options.average == "tail" else 0
        average = Average(policy, options.average, decay=options.average_decay, start=start)
    return Run(
        policy=policy,
        terms=plan.terms,
        schedule=plan.schedule,
        feeds=make_feeds(recipe, streams, accelerator, policy, loaded.tokenizer, plan, other, say),
        optimizer=optimizer,
        learning_rate=learning_rate,
        accelerator=accelerator,
        reference=reference,
        steps=plan.steps,
        tokens_per_row=options.row_budget,
        clipping=Clipping(options.max_grad_norm, clip),
        penalty=DeltaL1(options.delta_l1, loaded.model) if options.delta_l1 else None,
        average=average,
        seed=options.seed,
        out=out,
        told=str(recipe.model_dump(mode="json", include={"objective", "train"})),
        logging_steps=options.logging_steps,
        eval_steps=options.eval_steps,
        save_steps=options.save_steps,
        max_tokens=options.max_tokens or math.inf,
        probe_steps=recipe.probe.steps if recipe.probe else None,
    )


def make_callbacks(options: TrainOptions) -> list[Callback]:
    """Who looks on by the recipe's wish; `RecipeError` for a name or option that is unknown."""
    given = [options.report_to] if isinstance(options.report_to, str) else options.report_to
    try:
        found: list[Callback] = [Tracker(to=name) for name in given if name != "none"]
    except ValueError as error:
        raise RecipeError(f"train.report_to: {error}") from error
    try:
        return found + [PLUGINS.make(one) for one in options.callbacks]
    except ValueError as error:
        raise RecipeError(f"train.callbacks: {error}") from error


def make_accelerator(options: TrainOptions) -> Accelerator:
    """Devices and precision; refused where onestage could not honour the set-up."""
    AcceleratorState._reset_state()  # an earlier run of this process may have had other precision
    accelerator = Accelerator(
        mixed_precision="bf16" if options.bf16 else "no",
    )
    allowed = {DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU}
    if accelerator.distributed_type not in allowed:
        raise RecipeError(
            f"accelerate is set up for {accelerator.distributed_type.value}; onestage runs on one "
            "process or on several with replicated weights (multi-GPU, multi-CPU)"
        )
    return accelerator


def asks(recipe: Recipe) -> list[DataOptions]:
    """The streams whose problems the policy answers."""
    return [stream for stream in recipe.data if stream.reward is not None]


def wants_reference(recipe: Recipe, terms: Terms) -> bool:
    """Whether sampled responses are compared with the reference."""
    wanted = {
        terms.term_of[s.name, "check"] for s in asks(recipe) if (s.name, "check") in terms.term_of
    }
    return any("reference" in terms.objectives[name].needs for name in wanted)


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
    start = InitialWeights(policy).in_place if options.policy == "start" else None
    wanted = wants_reference(recipe, plan.terms)
    reference = _reference(policy, other, start) if wanted else None
    try:
        engine = samplers.make(options.engine, policy.model, tokenizer)
    except ValueError as error:
        raise RecipeError(f"rollout.engine: {error}") from error
    drawn = options.model_dump(include={"max_completion_length", "top_p", "top_k", "min_p"})
    answering = Answering(
        sampler=engine,
        judging=Judging(streams, options.missing_eos_penalty, options.on_failure),
        policy=policy,
        accelerator=accelerator,
        remember=Remember(policy, plan.terms, reference, accelerator, recipe.train.row_budget),
        worked=lambda record: "worked" in plan.terms.needs_of(record),
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


LOOKED_AT = 64
"""Problems of each stream that rewards look at before the first step."""


def make_streams(recipe: Recipe) -> dict[str, Online]:
    """Rewards and hint rule of each stream; `RecipeError` for a name or option that is unknown."""
    found = {}
    for stream in asks(recipe):
        try:
            rule = hints.make(stream.hint)
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


def _reference(policy: Policy, other: Policy | None, start: Reference | None) -> Reference:
    """Another model, or this one as it was before the run."""
    if other is not None:
        return lambda: nullcontext(other)
    return start or InitialWeights(policy).in_place


def _rewards(given: Any) -> list[tuple[str, float, Reward]]:
    found: list[tuple[str, float, Reward]] = []
    for one in given if isinstance(given, list) else [given]:
        name, options = named(one, "reward")
        weight = options.pop("weight", 1.0)
        if not isinstance(weight, int | float) or isinstance(weight, bool):
            raise RecipeError(f"reward {name}: weight must be a number, got {weight!r}")
        known = {other for other, _, _ in found}
        label = name if name not in known else f"{name}{len(found) + 1}"
        found.append((label, float(weight), rewards.make({"name": name, **options})))
    return found
