"""How much a step of a recipe trains on, for whoever divides a number of tokens among runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onestage.config import RecipeError
from onestage.models import tokenizer_of
from onestage.runfolder import silent
from onestage.training import stages
from onestage.training.plan import make_plan
from onestage.training.read import read_data
from onestage.training.recipe import parse_recipe


def tokens_a_step(content: Mapping[str, Any], stage: int | None = None) -> float:
    """Tokens that a step of a recipe (as plain data), or of its stage of that number, trains on.

    From the plan of the run as the recipe says it, so that it must say its length; only tokenizer and
    data are read. Raises `RecipeError` where answers are sampled, whose tokens nobody knows before.
    """
    recipe = parse_recipe(content)
    if stage is not None:
        first = recipe.model.name  # what the stage before leaves is not there yet
        recipe = stages.plan(recipe, Path())[stage].recipe
        recipe = recipe.model_copy(
            update={"model": recipe.model.model_copy(update={"name": first})}
        )
    if any(stream.reward is not None for stream in recipe.data):
        raise RecipeError(
            "budget: tokens of answers that are sampled are not known before; give updates"
        )
    made = make_plan(recipe, read_data(recipe, tokenizer_of(recipe.model), silent))
    return made.tokens() / made.steps
