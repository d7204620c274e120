"""What is trained, a language model or a reward model, and what of a recipe goes with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from onestage.objectives.contract import Objective
from onestage.objectives.registry import find, names
from onestage.recipe import Recipe, RecipeError

Chosen = TypeVar("Chosen", bound=Mapping[str, tuple[str, Objective]])


def fitting(recipe: Recipe, chosen: Chosen) -> Chosen:
    """The objectives of a recipe (by stream, kind or ""), if they train its sort of model.

    Raises `RecipeError` where one does not, or where the recipe asks a reward model for what only a
    language model has: text, log-probabilities, a reference.
    """
    task = recipe.model.task
    for name, objective in chosen.values():
        if objective.task != task:
            mine = ", ".join(n for n in names() if find(n).task == task)
            what = {"causal": "log-probabilities", "reward": "rewards"}[objective.task]
            raise RecipeError(
                f"objective {name} is about {what}, which a model of model.task: {task} does not give; "
                f"with it there are {mine}"
            )
    if task == "reward":
        _judges_only(recipe)
    return chosen


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
