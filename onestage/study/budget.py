"""A study's budget becomes `train.max_steps` of a recipe and of its stages.

Tokens are counted as a run counts them. How many a step holds depends on the data and the schedule, so
the steps for a number of tokens are found from the run's own plan; what a run really trained on is
reported with its results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from onestage.planning import make_plan
from onestage.policy.loading import load_tokenizer
from onestage.recipe import Recipe, RecipeError, parse_recipe
from onestage.stage_plan import plan
from onestage.wiring import model_source, read_data, silent

SAMPLE = 200
"""Steps of the plan that tokens a step are taken from."""


def within(recipe: Mapping[str, Any], budget: Mapping[str, int], out: Any) -> dict[str, Any]:
    """The recipe with its lengths filled in. Stages have a `share` each, equal ones by default."""
    stages = [dict(stage) for stage in recipe.get("stages") or []]
    shares = [stage.pop("share", None) for stage in stages]
    content = {**recipe, **({"stages": stages} if stages else {})}
    if not budget:
        if any(share is not None for share in shares):
            raise RecipeError("stages: a share divides a budget, but the study has none")
        return content
    if not stages:
        return _long(content, _steps(budget, 1.0, lambda: parse_recipe(_long(content, SAMPLE))))
    whole = [_long(stage, SAMPLE) for stage in stages]
    for number, part in enumerate(_parts(shares)):

        def tried(number: int = number) -> Recipe:
            made = plan(parse_recipe({**content, "stages": whole}), out)[number].recipe
            first = made.model.model_copy(update={"name": content["model"]["name"]})
            return made.model_copy(update={"model": first})  # the one before is not trained yet

        stages[number] = _long(stages[number], _steps(budget, part, tried))
    return {**content, "stages": stages}


def _long(content: Mapping[str, Any], steps: int) -> dict[str, Any]:
    return {**content, "train": {**content.get("train", {}), "max_steps": steps}}


def _parts(shares: list[Any]) -> list[float]:
    if all(share is None for share in shares):
        return [1 / len(shares)] * len(shares)
    good = all(isinstance(s, int | float) and not isinstance(s, bool) and s > 0 for s in shares)
    if not good:
        raise RecipeError(f"stages: share must be a positive number for each stage, got {shares}")
    return [share / sum(shares) for share in shares]


def _steps(budget: Mapping[str, int], part: float, recipe: Callable[[], Recipe]) -> int:
    if "updates" in budget:
        return max(1, round(part * budget["updates"]))
    tried = recipe()
    if any(stream.reward is not None for stream in tried.data):
        raise RecipeError(
            "budget: tokens of answers that are sampled are not known before; give updates"
        )
    data = read_data(tried, load_tokenizer(model_source(tried)), silent)
    a_step = make_plan(tried, data).tokens() / SAMPLE
    return max(1, round(part * budget["tokens"] / a_step))
