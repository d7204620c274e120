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
from typing import Any

from accelerate import PartialState

from onestage.config import RecipeError
from onestage.models import adapter_base, digest_files, tokenizer_of
from onestage.runfolder import Say, digest_of, read_metrics, silent, write_json
from onestage.training.plan import make_plan
from onestage.training.read import Data, cache_folder, read_data
from onestage.training.recipe import Recipe

EVALUATIONS = 8
"""Times that a run of one term is evaluated."""


def with_optimum(recipe: Recipe, train: Callable[[Recipe, Path], Path], say: Say) -> Recipe:
    """The recipe with f* given for every term that has a weight, measured where it was not."""
    if recipe.optimum is None or recipe.optimum.steps is None:
        return recipe
    steps = recipe.optimum.steps
    data = read_data(recipe, tokenizer_of(recipe.model), silent)
    plan = make_plan(recipe, data)
    given, on_training = dict(recipe.optimum.given), dict(recipe.optimum.on_training)
    for term, weight in plan.schedule.weights.items():
        if weight and term not in given:
            alone = single(recipe, term, list(plan.schedule.weights), steps)
            held_out, trained, known = _measured(alone, term, data, train)
            given[term] = held_out
            on_training.setdefault(term, trained)
            how = "found in the cache" if known else f"measured in {steps} steps"
            say(f"optimum of {term}: {held_out:.6g}, on training rows {trained:.6g} ({how})")
    found = {"given": given, "on_training": on_training, "steps": None}
    options = recipe.optimum.model_copy(update=found)
    return recipe.model_copy(update={"optimum": options})


def single(recipe: Recipe, term: str, terms: list[str], steps: int) -> Recipe:
    """The recipe of a run of one term alone, with everything that does not bear on it taken out."""
    held_out = any(stream.eval_path or stream.eval_split for stream in recipe.data)
    train: dict[str, Any] = {
        "max_steps": steps,
        "num_train_epochs": None,
        "eval_steps": max(1, steps // EVALUATIONS) if held_out else None,
        "logging_steps": max(1, steps // EVALUATIONS),
        **{"save_steps": None, "average": "none", "report_to": [], "callbacks": []},
    }
    if recipe.schedule == "proportional" and len(terms) == 1:
        schedule: Any = "proportional"
    else:
        schedule = {"name": "mix", "weights": {name: float(name == term) for name in terms}}
    return recipe.model_copy(
        update={
            "schedule": schedule,
            "train": recipe.train.model_copy(update=train),
            "description": "",
            **{"probe": None, "guard": [], "optimum": None, "stages": []},
        }
    )


def _measured(
    recipe: Recipe, term: str, data: Data, train: Callable[[Recipe, Path], Path]
) -> tuple[float, float, bool]:
    """The term's lowest held-out and training loss, and whether they were known."""
    cache = cache_folder(recipe)
    given = recipe.model_dump(mode="json", exclude={"cache_dir", "data"})
    stores = [store.folder.name for part in (data.train, data.held_out) for store in part.values()]
    parts = [stream.model_dump(include={"name", "weight", "per_step"}) for stream in recipe.data]
    base = adapter_base(recipe.model)
    models = [_content(name) for name in (recipe.model.name, base, recipe.reference)]
    folder = cache / "optimum" / digest_of([given, stores, parts, models, term])
    file = folder / "optimum.json"
    if file.is_file():
        known = json.loads(file.read_text())
        return float(known["held_out"]), float(known["training"]), True
    main = PartialState().is_main_process
    if main:
        shutil.rmtree(folder, ignore_errors=True)  # a run that was cut off
    if train(recipe, folder) != folder / "model":
        raise RecipeError(f"stopped while f* of {term} was measured; nothing was begun")
    held_out, trained = _lowest(folder, term)
    if main:
        shutil.rmtree(folder / "model", ignore_errors=True)
        write_json(file, {"term": term, "held_out": held_out, "training": trained})
    return held_out, trained, False


def _lowest(folder: Path, term: str) -> tuple[float, float]:
    """Lowest held-out loss (training loss where there are no such rows) and lowest training loss."""
    lines = read_metrics(folder)
    losses = [line["loss"] for line in lines if "loss" in line]
    held_out = [line[f"eval/terms/{term}"] for line in lines if f"eval/terms/{term}" in line]
    if not losses or any(loss is None for loss in losses + held_out):
        raise RecipeError(f"optimum: the run of {term} alone in {folder} has no finite losses")
    return min(held_out or losses), min(losses)


def _content(name: str | None) -> str:
    """A digest of a model folder's weights; the name itself for a hub model."""
    folder = Path(name or "")
    if name is None or not folder.is_dir():
        return str(name)
    kinds = ("*.safetensors", "*.bin", "*.json")
    return digest_files(file for kind in kinds for file in folder.glob(kind))
