"""Options that are given and change nothing as the others are: told, so that nobody waits for an effect.

They are no mistakes that would have to stop a run (a recipe may well be tried with another optimiser, or
without its problems), and what a run was told before it went on may not become one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import fields
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onestage.config import Section
from onestage.data.kinds import FEEDBACK, Kind
from onestage.models import Model
from onestage.models.estimate import held_in
from onestage.objectives._moot import moot
from onestage.rollout.problems import Problems
from onestage.runfolder import Say
from onestage.training import optimizer
from onestage.training.choices import schedule_of
from onestage.training.read import beyond, has_scores
from onestage.training.recipe import Train

if TYPE_CHECKING:
    from onestage.training.build import Draft

READ = (
    *("dtype", "load_in_4bit", "attn_implementation", "chat_template", "adapter", "revision"),
    *("trust_remote_code", "tokenizer"),
)
"""What is said of a model that is read from a folder or the hub."""
Idle = Iterator[tuple[str, str]]
"""Keys, and beside what they change nothing."""


def idle(draft: Draft) -> list[str]:
    """A line for each such option of a run that is planned."""
    recipe, stage, steps = draft.recipe, draft.stage, draft.planned.steps
    found = chain(
        _of_steps(recipe.train, steps),
        _of_savings(recipe.train),
        _of_sampling(draft),
        _of_streams(draft),
        _of_objectives(draft),
        _of_measures(draft),
        _of_model(recipe.model, bool(draft.given))
        if not (stage and stage.starts_from_stage)
        else (),
    )
    told = [f"{key} changes nothing {why}" for key, why in found]
    return [
        *told,
        *_short(recipe.train, steps),
        *_hinted(draft.problems, steps),
        *_halved(recipe.model, draft.config),
        *beyond(draft.stores, draft.config),
    ]


def tell(draft: Draft, say: Say) -> None:
    """Say them."""
    for line in idle(draft):
        say(f"note: {line}")


def _short(train: Train, steps: int) -> list[str]:
    """A warm-up that is not over when the run is."""
    warm = train.warmup_steps or math.ceil(train.warmup_ratio * steps)
    if warm < steps or not optimizer.warms_up(train, steps):
        return []
    return [
        f"train.learning_rate {train.learning_rate:g} is never reached: {warm} steps warm up, the run "
        f"has {steps}"
    ]


def _hinted(problems: Mapping[str, Problems], steps: int) -> Iterator[str]:
    """Hints that have not faded when the run ends: it has learned with them alone."""
    for name, one in problems.items():
        fade = getattr(one.hint, "hint_steps", 0)
        if fade > steps:
            yield (
                f"data.{name}.hint: the end of hint_steps {fade} is never reached: there are {steps} "
                "steps, and hints to its end"
            )


def _halved(model: Model, config: Any) -> Iterator[str]:
    """What is computed in float16, out of which small gradients fall. Of SmolLM2 the cosine of the whole
    gradient to float32's is .98 where the mean is over 10,000 tokens, .01 over a million."""
    if str(held_in(config, model.dtype)) == "torch.float16":
        yield (
            "model.dtype: gradients are not scaled, and in float16 those of a mean over many tokens "
            "become 0 (some at 10,000 tokens a step, nearly all at a million): take bfloat16 or float32"
        )


def _given(section: Section, *keys: str) -> list[str]:
    """Those of the keys that are not as they are by default."""
    told = section.model_dump(exclude_defaults=True, include=set(keys))
    return [key for key in keys if key in told]


def _of_steps(train: Train, steps: int) -> Idle:
    """Of the optimiser, its learning rate, and averages."""
    for key in _given(train, "warmup_steps", "warmup_ratio"):
        if not optimizer.warms_up(train, steps):
            yield f"train.{key}", f"under lr_scheduler_type: {train.lr_scheduler_type}"
    if train.warmup_steps and train.warmup_ratio:
        yield "train.warmup_ratio", "beside warmup_steps"
    for key in _given(train, "adam_beta1", "adam_beta2", "adam_epsilon"):
        if key in optimizer.not_taken(train):
            yield f"train.{key}", f"with optim: {train.optim}"
    for key, way in (("average_decay", "ema"), ("average_start", "tail")):
        if _given(train, key) and train.average != way:
            yield f"train.{key}", f"with average: {train.average} (it is of {way})"
    if _given(train, "clip") and not train.max_grad_norm:
        yield "train.clip", "with max_grad_norm: 0, which turns clipping off"


def _of_savings(train: Train) -> Idle:
    for key in _given(train, "save_total_limit", "async_save"):
        if not train.save_steps:
            yield (
                f"train.{key}",
                "without save_steps: there is no checkpoint but where a run is stopped",
            )


def _of_sampling(draft: Draft) -> Idle:
    """Of answers, where there are none, or where they are all the same."""
    rollout, stores = draft.recipe.rollout, draft.stores.held_out.values()
    told = sorted(rollout.model_dump(exclude_defaults=True))
    if told and not draft.problems:
        if draft.stage is None:  # another stage may have some
            yield f"rollout ({', '.join(told)})", "without problems: no stream of data has a reward"
        return
    held_out = any(store.table.has_problems for store in stores)
    for key in _given(rollout, "eval_temperature", "eval_generations"):
        if not held_out:
            yield f"rollout.{key}", "without held-out problems (eval_path)"
        elif key == "eval_generations" and not rollout.eval_temperature:
            yield f"rollout.{key}", "at eval_temperature 0, where all answers are the same"
    for key in _given(rollout, "top_p", "top_k", "min_p"):
        if not rollout.temperature and not (held_out and rollout.eval_temperature):
            yield f"rollout.{key}", "at temperature 0"


def _of_streams(draft: Draft) -> Idle:
    """Of a stream's weight, where no other one draws from the same batch."""
    plan = draft.planned
    together = plan.feeds.together is not None
    drawn = {(stream, term) for (stream, _), term in plan.terms.term_of.items()}
    there = Counter(term for _, term in drawn)
    for stream in draft.recipe.data:
        mine = [term for name, term in drawn if name == stream.name]
        alone = (
            len(draft.recipe.data) == 1 if together else mine and all(there[t] == 1 for t in mine)
        )
        if stream.weight and alone:
            beside = "beside no other stream"
            if not together:
                beside = (
                    f"under schedule {plan.name}, where each term draws batches of its own: weigh terms "
                    "(schedule.weights)"
                )
            yield f"data.{stream.name}.weight", beside


def _of_objectives(draft: Draft) -> Idle:
    """Of an objective, for the records that it is given."""
    terms, given = draft.planned.terms, draft.recipe.objective
    # A map of the whole recipe is for all stages.
    if isinstance(given, Mapping) and "name" not in given and draft.stage is None:
        used = {s if s in given else kind for s, kind in terms.term_of}
        for key in given:
            if key not in used:
                yield f"objective.{key}", "where no record of that kind is given to it"
    for name, objective in terms.objectives.items():
        mine = [place for place, term in terms.term_of.items() if term == name]
        kinds = {kind for _, kind in mine}
        scored = {kind for stream, kind in mine if not _lacks_scores(draft, stream, kind)}
        unscored = {kind for kind in kinds - scored if FEEDBACK[kind].paired}
        for option in moot(objective, kinds, unscored):
            told = ", ".join(sorted(kinds))
            yield f"objective {name}: {option}", f"for {told} records as they are"


def _lacks_scores(draft: Draft, stream: str, kind: Kind) -> bool:
    """Whether a stream's own records have none; those of sampled answers are still to come."""
    store = draft.stores.train[stream]
    return kind in store.counts() and not has_scores(store, kind)


def _of_measures(draft: Draft) -> Idle:
    """Of what is measured, compared and watched beside training."""
    recipe = draft.recipe
    kept, rule = {keep.stream for keep in recipe.keep}, schedule_of(recipe.schedule).rule
    compares = "optimum" in {field.name for field in fields(rule)}
    if recipe.optimum and not compares:
        if set(recipe.optimum.on_training) - set(recipe.optimum.given):
            yield (
                "optimum.on_training",
                f"under schedule {draft.planned.name}, which looks at no f*",
            )
        if not (draft.stores.held_out or recipe.keep):  # a bound tells its price against it
            yield "optimum", "without held-out rows (eval_path), of which gaps are told"
    looked_at = recipe.train.eval_steps or recipe.probe or recipe.optimum
    for stream in recipe.data:
        if stream.held_out and not looked_at and stream.name not in kept:
            yield f"data.{stream.name}.eval_path", "without train.eval_steps: nothing looks at it"
    for guard in recipe.guard:
        if _given(guard, "factor") and guard.then != "raise":
            yield f"guard.factor of {guard.measure}", f"with then: {guard.then} (it is of raise)"
    if recipe.evaluate and not recipe.evaluate.prompts:
        for key in _given(recipe.evaluate, "max_completion_length"):
            yield f"evaluate.{key}", "without prompts"


def _of_model(model: Model, there: bool) -> Idle:
    """there: whether the model is an object that was given in Python."""
    if model.task == "reward" and _given(model, "head"):
        yield "model.head", "of a reward model: what is read of it has no vocabulary"
    if there:
        for key in _given(model, *READ):
            yield f"model.{key}", "of a model that is loaded already: it is trained as it is given"
        return
    folder = Path(model.name or "")
    if model.revision and folder.is_dir() and not (folder / "adapter_config.json").exists():
        yield "model.revision", f"for a folder on disk, {folder}"
