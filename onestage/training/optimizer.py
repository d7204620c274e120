"""Optimisers and learning-rate schedules by name, and by how much a step's gradient is scaled down.

Clipping each step on its own, as usual, shrinks the steps of the term with the larger gradients more:
ALRIGHT's expected step is then no longer that of Mix (xright.md T13: suboptimality .0720 against
.0001). A factor that is common to all terms, from the running norm of each, clips as much on average
and keeps the weights; a gradient that is out of line with those of its own term is still cut.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_scheduler
from transformers.trainer_pt_utils import get_parameter_names
from transformers.training_args import OptimizerNames

from onestage.config import RecipeError, nearest
from onestage.models.masters import Masters
from onestage.models.policy import Policy
from onestage.schedules import Schedule
from onestage.training.recipe import Train

SPIKE = 4.0
"""A gradient this many times its own term's running norm is cut back to that."""
LOOKED_AT = 1000
"""Steps of which the learning rate is looked at."""
NOT_HERE = {
    "schedule_free": "keeps other weights for training than for evaluating, and is told when to change",
    "lomo": "steps within the backward pass, row by row",
    "layerwise": "steps within the backward pass, row by row",
}
"""What is in the names of optimisers that want more than a step, and what that is."""
WHOLE = (r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)")
"""Names of weights that do not decay, as transformers' trainer has them (a test compares the two)."""


@dataclass
class Clipping:
    """Factors for gradients of known norm. `limit` 0: no clipping at all."""

    limit: float
    how: Literal["step", "common"] = "step"
    rate: float = 0.1
    """How much a new norm counts against those before."""
    norm: dict[str, float] = field(default_factory=dict)
    """Running gradient norm of each term (of each set of terms that make up a step)."""
    steps: dict[str, int] = field(default_factory=dict)
    """Steps of each."""

    def factor(self, terms: Sequence[str], norm: float) -> float:
        """What to multiply a step's gradient of norm `norm` by, at most 1; then remember the norm."""
        if not self.limit > 0 or not norm > 0:
            return 1.0
        key = "+".join(terms)
        before = self.norm.get(key)
        wanted = min(1.0, self.limit / norm)
        if before is not None and self.how == "common":
            spike = min(1.0, SPIKE * before / norm)
            wanted = min(1.0, self.limit / self._mean()) * spike
        seen = norm if before is None else min(norm, SPIKE * before)
        self.norm[key] = seen if before is None else before + self.rate * (seen - before)
        self.steps[key] = self.steps.get(key, 0) + 1
        return wanted

    def _mean(self) -> float:
        """The expected norm of a step, over the terms as often as they were stepped on."""
        total = sum(self.steps.values())
        return sum(self.norm[key] * count / total for key, count in self.steps.items())

    def state(self) -> dict[str, Any]:
        return {"norm": dict(self.norm), "steps": dict(self.steps)}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.norm, self.steps = dict(state["norm"]), dict(state["steps"])


def clipping(options: Train, schedule: Schedule) -> Clipping:
    """How a run's gradients are clipped: `auto` keeps the terms' weights where one a step is drawn."""
    auto: Literal["step", "common"] = "common" if schedule.one_at_a_time else "step"
    return Clipping(options.max_grad_norm, auto if options.clip == "auto" else options.clip)


def check(options: Train) -> None:
    """Refuse an optimiser or schedule that cannot be had, or their arguments. Raises `RecipeError`."""
    weight = nn.Linear(1, 1)
    _scheduled(options, _kind(options, weight)([*weight.parameters()]), steps=2)


def warms_up(options: Train, steps: int) -> bool:
    """Whether the learning rate of some step is another one for the warm-up that is given."""
    without = options.model_copy(update={"warmup_ratio": 0.0, "warmup_steps": 0})
    with_it, plain = (_rates(one, min(steps, LOOKED_AT)) for one in (options, without))
    return with_it != plain


def _rates(options: Train, steps: int) -> list[float]:
    """Factors of the learning rate, step by step."""
    schedule = _scheduled(options, SGD([nn.Parameter(torch.zeros(1))]), steps)
    (rate,) = schedule.lr_lambdas
    return [rate(step) for step in range(steps)]


def not_taken(options: Train) -> set[str]:
    """Which of Adam's options an optimiser does not take."""
    told = _kind(options, nn.Linear(1, 1)).keywords
    needed = {"adam_beta1": "betas", "adam_beta2": "betas", "adam_epsilon": "eps"}
    return {ours for ours, theirs in needed.items() if theirs not in told}


def make(options: Train, policy: Policy, masters: Masters, steps: int) -> tuple[Any, Any]:
    """Optimiser (of masters, where weights have some) and learning-rate schedule by their transformers
    names; norms and biases do not decay."""
    model: Any = policy.model
    decayed = set(get_parameter_names(model, [nn.LayerNorm], [*WHOLE]))
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for n, p in trained if n in decayed], "weight_decay": options.weight_decay},
        {"params": [p for n, p in trained if n not in decayed], "weight_decay": 0.0},
    ]
    for group in groups:
        group["params"] = masters.of(group["params"])
    if policy.value_head is not None:
        groups[1]["params"] += list(policy.value_head.parameters())
    optimizer = _kind(options, model)([group for group in groups if group["params"]])
    return optimizer, _scheduled(options, optimizer, steps)


def settings(optimizer: Any) -> list[dict[str, Any]]:
    """What a new optimiser is told of each group of parameters. (What it keeps there itself while it
    goes is another matter, and so is the learning rate, which a schedule sets.)"""
    return [
        {key: value for key, value in group.items() if key not in ("params", "lr")}
        for group in optimizer.state_dict()["param_groups"]
    ]


def go_on(
    optimizer: Any,
    learning_rate: Any,
    state: Mapping[str, Any],
    made: Sequence[Mapping[str, Any]],
    now: Sequence[Mapping[str, Any]],
) -> None:
    """Put back the `state` of an optimiser that was `made` so, told what is not so `now`.

    Raises ValueError where it is of another optimiser.
    """
    mine, saved = (one["param_groups"] for one in (optimizer.state_dict(), state["optimizer"]))
    if [(set(g), len(g["params"])) for g in mine] != [(set(g), len(g["params"])) for g in saved]:
        raise ValueError("the state of its optimiser is of another one, or of other parameters")
    optimizer.load_state_dict(state["optimizer"])
    learning_rate.load_state_dict(state["learning_rate"])
    for place, (group, told) in enumerate(zip(optimizer.param_groups, now, strict=True)):
        before = made[place] if made else group
        group.update({key: value for key, value in told.items() if before.get(key) != value})
    if isinstance(learning_rate, LambdaLR):
        # As it comes out of the schedule there is now, at the step that was reached.
        learning_rate.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        learning_rate._last_lr = [
            base * rate(learning_rate.last_epoch)
            for base, rate in zip(learning_rate.base_lrs, learning_rate.lr_lambdas, strict=True)
        ]
        for group, rate in zip(optimizer.param_groups, learning_rate._last_lr, strict=True):
            group["lr"] = rate


def _kind(options: Train, model: Any) -> partial[Any]:
    """What makes the optimiser from groups of parameters."""
    known = [str(name.value) for name in OptimizerNames]
    if options.optim not in known:
        raise RecipeError(f"train.optim: unknown {options.optim!r}{nearest(options.optim, known)}")
    for mark, why in NOT_HERE.items():
        if mark in options.optim:
            raise RecipeError(
                f"train.optim {options.optim!r}: {why}, which this loop does not do; take adamw_torch, "
                "adafactor, sgd, ... (docs/recipe.md)"
            )
    if options.optim in (OptimizerNames.ADAMW_TORCH, OptimizerNames.ADAMW_TORCH_FUSED):
        if options.optim_args:
            raise RecipeError(
                f"train.optim_args: {options.optim} takes none, so {options.optim_args!r} would do "
                "nothing; give adam_beta1, adam_beta2, adam_epsilon or weight_decay by their own keys"
            )
        fused = True if options.optim == OptimizerNames.ADAMW_TORCH_FUSED else None
        betas, eps = (options.adam_beta1, options.adam_beta2), options.adam_epsilon
        return partial(AdamW, lr=options.learning_rate, betas=betas, eps=eps, fused=fused)
    # Here and not above: with the trainer come datasets and pandas, half a second of every start.
    from transformers import Trainer

    # The few attributes of TrainingArguments that matter: making a whole one resets accelerate.
    arguments: Any = SimpleNamespace(
        **options.model_dump(include={"optim_args", "learning_rate", "weight_decay"}),
        **options.model_dump(include={"adam_beta1", "adam_beta2", "adam_epsilon"}),
        optim=OptimizerNames(options.optim),
        optim_target_modules=None,
    )
    given = _pairs(options.optim_args)
    try:
        kind, made = Trainer.get_optimizer_cls_and_kwargs(arguments, model)
        for one in given:
            arguments.optim_args = ",".join(other for other in given if other is not one) or None
            if str(Trainer.get_optimizer_cls_and_kwargs(arguments, model)[1]) == str(made):
                raise RecipeError(
                    f"train.optim_args: {one} changes nothing for {options.optim}; take it out"
                )
    except (ValueError, ImportError) as error:
        if isinstance(error, RecipeError):
            raise
        raise RecipeError(f"train.optim {options.optim!r}: {error}") from error
    return partial(kind, **made)


def _pairs(given: str | None) -> list[str]:
    """`optim_args` one by one. Raises `RecipeError` for what is no `key=value`."""
    pairs = [one.strip() for one in given.split(",")] if given else []
    for one in pairs:
        if one.count("=") != 1:
            raise RecipeError(
                f"train.optim_args: expected key=value, key=value, ..., found {one!r}"
            )
    return pairs


def _scheduled(options: Train, optimizer: Any, steps: int) -> Any:
    warmup = options.warmup_steps or math.ceil(options.warmup_ratio * steps)
    try:
        found = get_scheduler(
            options.lr_scheduler_type,
            optimizer,
            warmup,
            steps,
            scheduler_specific_kwargs=options.lr_scheduler_kwargs,
        )
    except (ValueError, TypeError) as error:
        instead = "; its options are train.lr_scheduler_kwargs" if "argument" in str(error) else ""
        raise RecipeError(
            f"train.lr_scheduler_type {options.lr_scheduler_type!r}: {error}{instead}"
        ) from error
    if not isinstance(found, LambdaLR):
        raise RecipeError(
            f"train.lr_scheduler_type {options.lr_scheduler_type!r} goes by losses that are measured on "
            "the way, and here the learning rate is a function of the step: take linear, cosine, ..."
        )
    return found
