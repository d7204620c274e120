"""`onestage.train` and `onestage.check`: a recipe by its file, in Python, or both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from onestage import models
from onestage.config import RecipeError, Section, read_yaml
from onestage.data.given import has_splits
from onestage.data.stream import Stream
from onestage.models.policy import Policy
from onestage.runfolder import Say, parts_in, read_metrics, silent
from onestage.training.callbacks import Callback, require_told
from onestage.training.check import Checked, check_recipe
from onestage.training.parts import Given
from onestage.training.pipeline import carry_out
from onestage.training.recipe import Recipe, load_recipe, parse_recipe


@dataclass(frozen=True)
class Trained:
    """A run that has ended, or was stopped."""

    out: Path
    """Its folder."""
    model: Path
    """The folder of the trained model, plain transformers or PEFT; of a run that was stopped, its newest
    checkpoint."""

    @property
    def done(self) -> bool:
        """Whether it went to its end."""
        return self.model == self.out / "model"

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`, of all stages one after another."""
        return [line for folder in parts_in(self.out) for line in read_metrics(folder)]

    @property
    def policy(self) -> Policy:
        """The trained model, loaded to be asked: `policy(row)` gives log-probabilities."""
        return models.open(self.model if self.done else self.model / "model")

    def resume(self, *, say: Say = print, callbacks: Sequence[Callback] = ()) -> Trained:
        """Go on with a run that was stopped, as its folder's recipe has it, to the same last bit."""
        return train(
            self.out / "recipe.yaml", out=self.out, resume=True, say=say, callbacks=callbacks
        )


def train(
    recipe: Any = None,
    *,
    out: str | Path | None = None,
    model: Any = None,
    lora: Any = None,
    tokenizer: Any = None,
    data: Any = None,
    resume: bool = False,
    allow_changed: Sequence[str] = (),
    self_check: bool = True,
    say: Say = print,
    callbacks: Sequence[Callback] = (),
    **sections: Any,
) -> Trained:
    """Train what a recipe says: a YAML file, its content, sections given here, or the first with the
    others laid over it, as in `train("recipe.yaml", train={"seed": 1})`. Stages too.

    model: a folder or hub id, a `Model`, or a transformers model that is loaded already, with its
    `tokenizer` (it is changed in place). lora: adapters to train on it, as `model.lora`. data: a list
    of streams, or a table of them by name; each is a path, a hub name, a `Stream`, a list of dicts or
    a `datasets.Dataset`. out: the run folder (default: `runs/` and the name of the recipe's file).
    The other sections have the keys that a recipe has. resume: go on with the run in `out`;
    allow_changed: keys in which its recipe may now be another, as `["train.learning_rate"]`.

    Raises `RecipeError` (a ValueError) for all that can be refused before the first step, and
    `OutputError` for a folder that cannot be used.
    """
    whole, given = _assembled(recipe, model, lora, tokenizer, data, sections)
    folder = _folder(recipe, out)
    # Also where whoever calls has switched gradients off.
    with torch.inference_mode(False), torch.enable_grad():
        saved = carry_out(
            whole,
            folder,
            resume=resume,
            allow_changed=allow_changed,
            self_check=self_check,
            say=say,
            callbacks=_told(callbacks),
            given=given,
        )
    return Trained(folder, saved)


def _told(callbacks: Any) -> Sequence[Callback]:
    """The callbacks; `RecipeError` for what is none."""
    listed = list(callbacks) if isinstance(callbacks, Sequence) else [callbacks]
    for one in listed:
        try:
            require_told(one)
        except ValueError as error:
            raise RecipeError(f"callbacks: {error}") from error
    return listed


def check(
    recipe: Any = None,
    *,
    out: str | Path | None = None,
    model: Any = None,
    lora: Any = None,
    tokenizer: Any = None,
    data: Any = None,
    say: Say = silent,
    callbacks: Sequence[Callback] = (),
    **sections: Any,
) -> list[Checked]:
    """What `train` with the same arguments would be trained on, and all that it would refuse, run by
    run.

    No weights are loaded. `all(one.good for one in check(...))` says whether it can be trained.
    """
    for how in ("resume", "allow_changed", "self_check"):
        sections.pop(how, None)  # of the run alone
    _told(callbacks)
    whole, given = _assembled(recipe, model, lora, tokenizer, data, sections)
    return list(check_recipe(whole, None if out is None else Path(out), say=say, given=given))


def _folder(recipe: Any, out: str | Path | None) -> Path:
    if out is not None:
        return Path(out)
    if isinstance(recipe, str | Path):
        return Path("runs") / Path(recipe).stem
    raise RecipeError("out: say in which folder the run is kept, as in out='runs/first'")


def _assembled(
    recipe: Any,
    model: Any,
    lora: Any,
    tokenizer: Any,
    data: Any,
    sections: Mapping[str, Any],
) -> tuple[Recipe, Given | None]:
    """The recipe that all of it makes, and the model where it is an object."""
    given, laid = None, dict(sections)
    if data is not None:
        table = isinstance(data, Mapping) and not has_splits(data)
        laid["data"] = data if table else _listed(data)
    if model is not None and not isinstance(model, str | Path | Mapping | Section):
        if tokenizer is None:
            raise RecipeError("tokenizer: a model that is loaded already needs its tokenizer")
        given = Given(model, tokenizer)
        model = {"name": getattr(model, "name_or_path", "") or "given in Python"}
    if model is not None:
        laid["model"] = {"name": str(model)} if isinstance(model, str | Path) else model
    if lora is not None:
        laid["model"] = _over({"model": laid.get("model", {})}, {"model": {"lora": lora}})["model"]
    if not laid:
        return load_recipe(recipe), given
    return parse_recipe(_over(_content(recipe), laid)), given


def _listed(data: Any) -> list[Any]:
    """Streams of a list: of sections and tables as they are; rows alone are one stream."""
    if isinstance(data, Stream):
        return [data]
    listed = isinstance(data, Sequence) and not isinstance(data, str) and data
    if listed and all(_is_stream(one) for one in data):
        return [Stream(one) if isinstance(one, str | Path) else one for one in data]
    return [{"name": "data", "path": data}]


def _is_stream(one: Any) -> bool:
    """Whether it stands for a stream, and not for a row."""
    return isinstance(one, Section | str | Path) or (isinstance(one, Mapping) and "path" in one)


def _content(recipe: Any) -> dict[str, Any]:
    if recipe is None:
        return {}
    if isinstance(recipe, str | Path):
        return read_yaml(Path(recipe), "recipe", Recipe.model_fields)
    if isinstance(recipe, Recipe):
        return {name: getattr(recipe, name) for name in recipe.model_fields_set}
    return dict(recipe)


def _over(content: Mapping[str, Any], laid: Mapping[str, Any]) -> dict[str, Any]:
    """Sections laid over others: a table changes the keys it has, anything else replaces."""
    found = dict(content)
    for name, section in laid.items():
        under = found.get(name)
        if isinstance(under, Section):
            under = under.model_dump(exclude_unset=True)
        # An objective is a choice: keys of one do not belong to another.
        table = isinstance(under, Mapping) and isinstance(section, Mapping) and name != "objective"
        found[name] = {**under, **section} if table else section  # type: ignore[dict-item]
    return found
