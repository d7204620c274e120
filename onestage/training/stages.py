"""From a recipe with stages to the recipe of each stage: arithmetic on names, nothing is read.

What a stage says of the adapter and of the reference it says explicitly: sequential baselines have gone
wrong in just these two places (docs/stages.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onestage.config import RecipeError, nearest
from onestage.models import Lora
from onestage.training.recipe import Recipe, StageOptions, parse_recipe

SHARED = ("data", "stages", "cache_dir")
"""Sections that a stage cannot have of its own."""


BY_KEY = ("model", "train")
"""Sections of which a stage gives single keys, the others staying as the recipe has them."""


EITHER = [("max_steps", "num_train_epochs"), ("warmup_steps", "warmup_ratio")]
"""Keys of `train` that say one thing in two ways: a stage that gives one unsays the recipe's other."""


@dataclass(frozen=True)
class Stage:
    """One run of the list."""

    name: str
    folder: Path
    recipe: Recipe
    says_reference: bool
    """Whether the recipe says what the reference is (the first stage need not: it has only one)."""
    own_map: Mapping[str, Any]
    """The stage's own map of objectives, every entry of which must be used."""
    lora: Lora | None
    """The shape of the adapters it trains, where the recipe knows it."""
    leaves_adapter: bool


def plan(recipe: Recipe, out: Path, *, from_adapter: bool = False) -> list[Stage]:
    """The recipe of each stage. `from_adapter`: whether `model.name` is an adapter folder.

    Raises `RecipeError` naming the stage for all that can be seen in the recipe alone.
    """
    options, out = recipe.stages or [], out.resolve()
    names = [stage.name for stage in options]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RecipeError(f"stages: names must differ, found {twice} more than once")
    taken = sorted({"start", "first"} & set(names))
    if taken:
        raise RecipeError(f"stages: the name {taken[0]!r} already means a reference")
    if options and recipe.reference != "start":
        raise RecipeError("reference: with stages each stage says its own")
    made: list[Stage] = []
    for number, stage in enumerate(options, 1):
        try:
            made.append(_stage(recipe, stage, out / f"{number}-{stage.name}", made, from_adapter))
        except RecipeError as error:
            raise RecipeError(f"stages.{stage.name}: {error}") from error
    return made


def first_model(recipe: Recipe, out: Path) -> str:
    """The model the whole recipe starts from; a fresh one is written to a folder of its own."""
    return recipe.model.name or str(out / "start")


def _stage(
    recipe: Recipe, options: StageOptions, folder: Path, before: list[Stage], from_adapter: bool
) -> Stage:
    own = _own(options)
    whole = recipe.model_dump(exclude_unset=True, exclude={"stages"})
    content = {**whole, **{key: value for key, value in own.items() if key not in BY_KEY}}
    content["train"] = _train(whole.get("train", {}), own.get("train", {}))
    content["data"] = _streams(recipe, options, whole["data"])
    if "objective" not in own and isinstance(content.get("objective"), dict):
        left = {stream.name for stream in recipe.data} - {s["name"] for s in content["data"]}
        content["objective"] = {k: v for k, v in content["objective"].items() if k not in left}
    had_adapter = before[-1].leaves_adapter if before else from_adapter
    content["model"] = _model(recipe, options, own.get("model", {}), folder, before, had_adapter)
    content["reference"] = _reference(recipe, options.reference, folder, before)
    parsed = parse_recipe(content)
    goes_on = had_adapter and parsed.model.adapter == "same"
    objective = own.get("objective")
    return Stage(
        name=options.name,
        folder=folder,
        recipe=parsed,
        says_reference=options.reference is not None or not before,
        own_map=objective if isinstance(objective, dict) and "name" not in objective else {},
        lora=parsed.model.lora or (before[-1].lora if goes_on and before else None),
        leaves_adapter=parsed.model.lora is not None or goes_on,
    )


def _own(options: StageOptions) -> dict[str, Any]:
    """The recipe sections that the stage has of its own."""
    own = dict(options.model_extra or {})
    known = [*StageOptions.model_fields, *(key for key in Recipe.model_fields if key not in SHARED)]
    for key in own:
        if key in SHARED:
            hint = "; choose from it with streams" if key == "data" else ""
            raise RecipeError(f"{key} is the same for all stages{hint}")
        if key not in known:
            raise RecipeError(f"{key}: unknown key{nearest(key, known)}")
    for key in BY_KEY:
        if not isinstance(own.get(key, {}), dict):
            raise RecipeError(f"{key}: expected a mapping, got {own[key]!r}")
    for key in ("name", "config", "adapter"):
        if key in own.get("model", {}):
            where = "the stage's adapter" if key == "adapter" else "the recipe's model"
            raise RecipeError(f"model.{key} cannot be set in a stage; it is {where}")
    return own


def _train(whole: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    unsaid = {b for pair in EITHER for a, b in (pair, pair[::-1]) if a in own}
    return {**{key: value for key, value in whole.items() if key not in unsaid}, **own}


def _streams(recipe: Recipe, options: StageOptions, data: list[Any]) -> list[Any]:
    known = [stream.name for stream in recipe.data]
    chosen = options.streams or known
    for name in chosen:
        if name not in known:
            raise RecipeError(f"streams: no stream {name!r} in data{nearest(name, known)}")
    return [stream for stream in data if stream["name"] in chosen]


def _model(
    recipe: Recipe,
    options: StageOptions,
    own: dict[str, Any],
    folder: Path,
    before: list[Stage],
    had_adapter: bool,
) -> dict[str, Any]:
    """The model section: where the stage starts, and what becomes of an adapter there."""
    model = {**recipe.model.model_dump(mode="json", exclude_unset=True), **own}
    if model.pop("config", None) is not None:
        model.pop("tokenizer", None)  # it lies beside the fresh model
    policy = options.adapter
    if not before:
        model["name"] = first_model(recipe, folder.parent)
    else:
        model.pop("adapter", None)  # it was about the recipe's model
        model["name"] = str(before[-1].folder / "model")
        if had_adapter and policy is None:
            raise RecipeError(
                f"stage {before[-1].name} leaves an adapter; say what becomes of it. adapter: same "
                "(it is trained further), merge (into its base, then a new adapter, or with "
                "`model: {lora: null}` all weights), or stack (it stays, under a new one)"
            )
    if policy is not None and not had_adapter:
        raise RecipeError(f"adapter: {policy}, but the stage starts from a whole model")
    if before and policy == "same":
        if own.get("lora") is not None:
            raise RecipeError("adapter: same keeps the adapter's shape; remove model.lora")
        model.pop("lora", None)
    if policy is not None:
        model["adapter"] = policy
    return model


def _reference(recipe: Recipe, word: str | None, folder: Path, before: list[Stage]) -> str:
    """What the stage's recipe says as `reference`."""
    if word in (None, "start") or (word == "first" and not before):
        return "start"
    assert word is not None
    if word == "first":
        return first_model(recipe, folder.parent)
    earlier = {stage.name: stage for stage in before}
    if word in earlier:
        return str(earlier[word].folder / "model")
    if word in [stage.name for stage in recipe.stages or []]:
        raise RecipeError(f"reference: stage {word!r} is not done before this one")
    if "/" not in word and not Path(word).exists():
        raise RecipeError(
            f"reference: no stage or folder {word!r}{nearest(word, ['start', 'first', *earlier])}"
        )
    return word
