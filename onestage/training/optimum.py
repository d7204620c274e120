"""f*: the best each term can do, found by short runs of that term alone.

Fernando et al. 2024 take the evaluation loss after training on one objective with the same budget
(xright.md 1.8). Here it is the lowest loss that such a run reaches: on held-out rows, for gaps, and on
training rows, for schedules that decide by training losses (which a run soon brings below what can be
reached on held-out ones). The runs are cached by the content of model, data and settings.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from accelerate import PartialState

from onestage import models
from onestage.config import RecipeError
from onestage.runfolder import Say, digest_of, read_metrics, write_json
from onestage.training.build import Draft
from onestage.training.plan import alone
from onestage.training.recipe import Recipe

KINDS = ("*.safetensors", "*.bin", "*.json")
"""Files of a model folder that its losses depend on."""
Go = Callable[[Recipe, Path], Path]
"""Carries a recipe out in a folder, and returns where the model lies."""


def complete(draft: Draft, go: Go, say: Say) -> Recipe:
    """The draft's recipe with f* given for every term that has a weight, measured where it was not."""
    recipe, optimum = draft.recipe, draft.recipe.optimum
    if optimum is None or optimum.steps is None:
        return recipe
    given, on_training = dict(optimum.given), dict(optimum.on_training)
    weights = draft.planned.schedule.weights
    for term, weight in weights.items():
        if weight and term not in given:
            held_out, trained, known = _measured(draft, term, optimum.steps, go)
            given[term] = held_out
            on_training.setdefault(term, trained)
            how = "found in the cache" if known else f"measured in {optimum.steps} steps"
            say(f"optimum of {term}: {held_out:.6g}, on training rows {trained:.6g} ({how})")
    found = {"given": given, "on_training": on_training, "steps": None}
    return recipe.model_copy(update={"optimum": optimum.model_copy(update=found)})


def _measured(draft: Draft, term: str, steps: int, go: Go) -> tuple[float, float, bool]:
    """The term's lowest held-out and training loss, and whether they were known."""
    single = alone(draft.recipe, term, list(draft.planned.schedule.weights), steps)
    given = single.model_dump(mode="json", exclude={"cache_dir", "data"})
    stores = [store.folder.name for store in draft.stores.trained_and_evaluated()]
    parts = [stream.model_dump(include={"name", "weight", "per_step"}) for stream in single.data]
    named = (single.model.name, models.adapter_base(single.model), single.reference)
    content = [given, stores, parts, [_digest(name) for name in named], term]
    folder = draft.cache / "optimum" / digest_of(content)
    file = folder / "optimum.json"
    if file.is_file():
        known = json.loads(file.read_text())
        return float(known["held_out"]), float(known["training"]), True
    main = PartialState().is_main_process
    if main:
        shutil.rmtree(folder, ignore_errors=True)  # a run that was cut off
    if go(single, folder) != folder / "model":
        raise RecipeError(f"stopped while f* of {term} was measured; nothing was begun")
    held_out, trained = _lowest(folder, term)
    if main:
        shutil.rmtree(folder / "model", ignore_errors=True)
        write_json(file, {"term": term, "held_out": held_out, "training": trained})
    return held_out, trained, False


def _digest(name: str | None) -> str:
    """Of a model folder's weights and settings; the name itself for a hub model."""
    folder = Path(name or "")
    if name is None or not folder.is_dir():
        return str(name)
    return models.digest_files(file for kind in KINDS for file in folder.glob(kind))


def _lowest(folder: Path, term: str) -> tuple[float, float]:
    """Lowest held-out loss (training loss where there are no such rows) and lowest training loss."""
    lines = read_metrics(folder)
    losses = [line["loss"] for line in lines if "loss" in line]
    held_out = [line[f"eval/terms/{term}"] for line in lines if f"eval/terms/{term}" in line]
    if not losses or any(loss is None for loss in losses + held_out):
        raise RecipeError(f"optimum: the run of {term} alone in {folder} has no finite losses")
    return min(held_out or losses), min(losses)
