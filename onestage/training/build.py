"""A plan and a loaded model become a run.

From a recipe to the parts of a run: the one place where names become objects.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

from onestage.config import RecipeError
from onestage.data.kinds import FEEDBACK
from onestage.models.average import Average
from onestage.models.penalty import DeltaL1
from onestage.models.policy import Policy
from onestage.models.reference import InitialWeights, ReferenceCache
from onestage.models.weights import Loaded
from onestage.rollout import build as rollout
from onestage.rollout.problems import Problems
from onestage.rollout.stock import Stock
from onestage.runfolder import Say
from onestage.training.callbacks import PLUGINS, Callback
from onestage.training.callbacks.tracker import Tracker
from onestage.training.loop import Run
from onestage.training.optimizer import Clipping, make_optimizer
from onestage.training.plan import Plan
from onestage.training.recipe import Recipe, TrainOptions
from onestage.training.sampled import Reference, Remember
from onestage.training.terms import Terms


def make_run(
    recipe: Recipe,
    problems: Mapping[str, Problems],
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
    options, policy = recipe.train, Policy(loaded.model, loaded.tokenizer)
    if "value" in plan.terms.needs:
        policy.add_value_head()
    optimizer, learning_rate = make_optimizer(options, policy, plan.steps)
    alone = plan.schedule.one_at_a_time
    clip = ("common" if alone else "step") if options.clip == "auto" else options.clip
    average = None
    if options.average != "none":
        start = round(options.average_start * plan.steps) if options.average == "tail" else 0
        average = Average(policy, options.average, decay=options.average_decay, start=start)
    answers = make_answers(
        recipe, problems, accelerator, policy, loaded.tokenizer, plan, other, say
    )
    return Run(
        policy=policy,
        terms=plan.terms,
        schedule=plan.schedule,
        feeds=replace(plan.feeds, answers=answers),
        answers=answers,
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


def wants_reference(problems: Collection[str], terms: Terms) -> bool:
    """Whether sampled responses are compared with the reference. `problems`: the streams of problems."""
    wanted = {
        term
        for (stream, kind), term in terms.term_of.items()
        if stream in problems and FEEDBACK[kind].asked
    }
    return any("reference" in terms.objectives[name].needs for name in wanted)


def make_answers(
    recipe: Recipe,
    problems: Mapping[str, Problems],
    accelerator: Accelerator,
    policy: Policy,
    tokenizer: Any,
    plan: Plan,
    other: Policy | None,
    say: Say,
) -> Stock | None:
    """What answers the problems of the recipe, where it has any. `other`: a reference that is not the
    model the run starts from."""
    if not problems:
        return None
    section = recipe.rollout
    start = InitialWeights(policy).in_place if section.policy == "start" else None
    wanted = wants_reference(problems, plan.terms)
    reference = _reference(policy, other, start) if wanted else None
    return rollout.make(
        section,
        problems,
        policy,
        tokenizer,
        accelerator=accelerator,
        remember=Remember(policy, plan.terms, reference, accelerator, recipe.train.row_budget),
        worked=lambda record: "worked" in plan.terms.needs_of(record),
        start=start,
        seed=recipe.train.seed,
        say=say,
    )


def _reference(policy: Policy, other: Policy | None, start: Reference | None) -> Reference:
    """Another model, or this one as it was before the run."""
    if other is not None:
        return lambda: nullcontext(other)
    return start or InitialWeights(policy).in_place
