"""From a recipe with stages to the recipe of each stage: arithmetic on names, nothing is read.

What a stage says of the adapter and of the reference it says explicitly: sequential baselines have gone
wrong in just these two places (docs/stages.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onestage.config import RecipeError, nearest
from onestage.models import Lora
from onestage.training.recipe import Recipe, Stage, parse_recipe

SHARED = ("data", "stages", "cache_dir")
"""Sections that a stage cannot have of its own."""
BY_KEY = ("model", "train")
"""Sections of which a stage gives single keys, the others staying as the recipe has them."""
EITHER = [("max_steps", "num_train_epochs"), ("warmup_steps", "warmup_ratio")]
"""Keys of `train` that say one thing in two ways: a stage that gives one unsays the recipe's other."""


@dataclass(frozen=True)
class StageRun:
    """One run of the list; a recipe without stages is a list of one, without a name."""

    name: str
    folder: Path
    recipe: Recipe
    says_reference: bool = True
    """Whether the recipe says what the reference is (the first stage need not: it has only one)."""
    own_map: Mapping[str, Any] = field(default_factory=dict)
    """The stage's own map of objectives, every entry of which must be used."""
    lora: Lora | None = None
    """The shape of the adapters it trains, where the recipe knows it."""
    leaves_adapter: bool = False
    starts_from_stage: bool = False
    """Whether its model is made by the stage before, and cannot be looked at yet."""


@dataclass(frozen=True)
class Whole:
    """A recipe with stages as plain content, for its stages to be cut from."""

    content: Mapping[str, Any]
    """Every section that is given, but for `stages`."""
    stages: Sequence[Stage]
    out: Path
    from_adapter: bool
    """Whether `model.name` is an adapter folder."""

    @property
    def streams(self) -> list[str]:
        return [stream["name"] for stream in self.content["data"]]

    @property
    def first_model(self) -> str:
        """The model the whole recipe starts from; a fresh one is written to a folder of its own."""
        return self.content["model"].get("name") or str(self.out / "start")

    def runs(self) -> list[StageRun]:
        """The recipe of each stage; `RecipeError` naming it for all that can be seen in the recipe."""
        names = [stage.name for stage in self.stages]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise RecipeError(f"stages: names must differ, found {twice} more than once")
        taken = sorted({"start", "first"} & set(names))
        if taken:
            raise RecipeError(f"stages: the name {taken[0]!r} already means a reference")
        if self.content.get("reference", "start") != "start":
            raise RecipeError("reference: with stages each stage says its own")
        made: list[StageRun] = []
        for number, stage in enumerate(self.stages, 1):
            try:
                made.append(self._run(stage, self.out / f"{number}-{stage.name}", made))
            except RecipeError as error:
                raise RecipeError(f"stages.{stage.name}: {error}") from error
        return made

    def _run(self, stage: Stage, folder: Path, before: list[StageRun]) -> StageRun:
        own = _own(stage)
        whole = self.content
        content = {**whole, **{key: value for key, value in own.items() if key not in BY_KEY}}
        content["train"] = _train(whole.get("train", {}), own.get("train", {}))
        content["data"] = self._chosen(stage)
        if "objective" not in own and isinstance(content.get("objective"), dict):
            left = {*self.streams} - {stream["name"] for stream in content["data"]}
            content["objective"] = {k: v for k, v in content["objective"].items() if k not in left}
        # Known from the recipes alone: no stage has been trained yet.
        had_adapter = before[-1].leaves_adapter if before else self.from_adapter
        content["model"] = self._model(stage, own.get("model", {}), before, had_adapter)
        content["reference"] = self._reference(stage.reference, before)
        recipe = parse_recipe(content)
        goes_on = had_adapter and recipe.model.adapter == "same"
        objective = own.get("objective")
        return StageRun(
            name=stage.name,
            folder=folder,
            recipe=recipe,
            says_reference=stage.reference is not None or not before,
            own_map=objective if isinstance(objective, dict) and "name" not in objective else {},
            lora=recipe.model.lora or (before[-1].lora if goes_on and before else None),
            leaves_adapter=recipe.model.lora is not None or goes_on,
            starts_from_stage=bool(before),
        )

    def _chosen(self, stage: Stage) -> list[Any]:
        known = self.streams
        chosen = stage.streams or known
        for name in chosen:
            if name not in known:
                raise RecipeError(f"streams: no stream {name!r} in data{nearest(name, known)}")
        return [stream for stream in self.content["data"] if stream["name"] in chosen]

    def _model(
        self, stage: Stage, own: dict[str, Any], before: list[StageRun], had_adapter: bool
    ) -> dict[str, Any]:
        """The model section: where the stage starts, and what becomes of an adapter there."""
        model = {**self.content["model"], **own}
        if model.pop("config", None) is not None:
            model.pop("tokenizer", None)  # it lies beside the fresh model
        policy = stage.adapter
        if not before:
            model["name"] = self.first_model
        else:
            model.pop("adapter", None)  # it was about the recipe's model
            model["name"] = str(before[-1].folder / "model")
            if had_adapter and policy is None:
                raise RecipeError(
                    f"stage {before[-1].name} leaves an adapter; say what becomes of it. adapter: same"
                    " (it is trained further), merge (into its base, then a new adapter, or with "
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

    def _reference(self, word: str | None, before: list[StageRun]) -> str:
        """What the stage's recipe says as `reference`."""
        if word in (None, "start") or (word == "first" and not before):
            return "start"
        assert word is not None
        if word == "first":
            return self.first_model
        earlier = {stage.name: stage for stage in before}
        if word in earlier:
            return str(earlier[word].folder / "model")
        if word in [stage.name for stage in self.stages]:
            raise RecipeError(f"reference: stage {word!r} is not done before this one")
        if "/" not in word and not Path(word).exists():
            known = ["start", "first", *earlier]
            raise RecipeError(f"reference: no stage or folder {word!r}{nearest(word, known)}")
        return word


def _own(stage: Stage) -> dict[str, Any]:
    """The recipe sections that the stage has of its own."""
    own = dict(stage.model_extra or {})
    known = [*Stage.model_fields, *(key for key in Recipe.model_fields if key not in SHARED)]
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


def _train(whole: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    unsaid = {b for pair in EITHER for a, b in (pair, pair[::-1]) if a in own}
    return {**{key: value for key, value in whole.items() if key not in unsaid}, **own}
