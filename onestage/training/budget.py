"""How much a step of a recipe trains on, for whoever divides a number of tokens among runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onestage.config import RecipeError
from onestage.training.build import Draft
from onestage.training.plan import stages_of
from onestage.training.recipe import parse_recipe


def tokens_a_step(content: Mapping[str, Any], stage: int | None = None) -> float:
    """Tokens that a step of a recipe (as plain data), or of its stage of that number, trains on.

    From the plan of the run as the recipe says it, so that it must say its length; only tokenizer and
    data are read. Raises `RecipeError` where answers are sampled, whose tokens nobody knows before.
    """
    whole = parse_recipe(content)
    recipe = whole if stage is None else stages_of(whole, Path())[stage].recipe
    if any(stream.reward is not None for stream in recipe.data):
        raise RecipeError(
            "budget: tokens of answers that are sampled are not known before; give updates"
        )
    draft = Draft(recipe, first=whole.model)  # what the stage before leaves is not there yet
    draft.read()
    draft.refuse()
    return draft.planned.tokens() / draft.planned.steps
