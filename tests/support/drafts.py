"""What a recipe's data and plan come to, without a model."""

from __future__ import annotations

from collections.abc import Sequence

from onestage.training.build import Draft
from onestage.training.choices import name_terms, name_terms_by, objectives_of, refuse, resolve
from onestage.training.read import Data
from onestage.training.recipe import Recipe
from onestage.training.terms import Terms


def data_of(recipe: Recipe) -> Data:
    """The stores of a recipe, whatever it refuses."""
    draft = Draft(recipe)
    draft.read()
    return draft.stores


def terms_of(recipe: Recipe, data: Data, keys: Sequence[str] | None = None) -> Terms:
    """The terms of a recipe, or those that a schedule's weights would make."""
    chosen = objectives_of(recipe.objective, recipe.data, recipe.rollout.max_completion_length)
    resolved = resolve(chosen, recipe.data, data)
    refuse(resolved)
    return name_terms(resolved) if keys is None else name_terms_by(keys, resolved, keys)
