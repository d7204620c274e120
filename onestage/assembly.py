"""A plan and a loaded model become a run."""

from __future__ import annotations

import math
from collections.abc import Mapping

from accelerate import Accelerator

from onestage.averaging import Average
from onestage.online import make_feeds
from onestage.planning import Plan
from onestage.policy.loading import Loaded
from onestage.policy.penalty import DeltaL1
from onestage.policy.policy import Policy
from onestage.policy.reference import ReferenceCache
from onestage.policy.scorer import policy_of
from onestage.recipe import Recipe
from onestage.rollout.judging import Online
from onestage.schedules.clipping import Clipping
from onestage.training import Run
from onestage.wiring import Say, make_optimizer


def make_run(
    recipe: Recipe,
    streams: Mapping[str, Online],
    accelerator: Accelerator,
    loaded: Loaded,
    plan: Plan,
    reference: ReferenceCache | None,
    other: Policy | None,
    say: Say,
) -> Run:
    """The parts of a run put together, ready for the loop. `other`: a reference that is not the model
    the run starts from."""
    options, policy = recipe.train, policy_of(loaded.model)
    if any("value" in objective.reads for objective in plan.terms.objectives.values()):
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
        logging_steps=options.logging_steps,
        eval_steps=options.eval_steps,
        save_steps=options.save_steps,
        max_tokens=options.max_tokens or math.inf,
        probe_steps=recipe.probe.steps if recipe.probe else None,
    )
