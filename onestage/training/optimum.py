"""f*: the best each term can do, found by short runs of that term alone.

Fernando et al. 2024 take the evaluation loss after training on one objective with the same budget
(xright.md 1.8). Here it is the lowest loss that such a run reaches: on held-out rows, for gaps, and on
training rows, for schedules that decide by training losses (which a run soon brings below what can be
reached on held-out ones). The runs are cached by the content of model, data and settings.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from secrets import token_hex
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from onestage import models
from onestage.config import RecipeError
from onestage.data import kept
from onestage.runfolder import Say, digest_of, json_lines, read_json, write_json
from onestage.runfolder.seal import damage
from onestage.training.build import Draft
from onestage.training.plan import alone
from onestage.training.recipe import Recipe

FILE = "optimum.json"

KINDS = ("*.safetensors", "*.bin", "*.json")
"""Files of a model folder that its losses depend on."""
UNASKED: dict[str, Any] = {
    **{"cache_dir": True, "data": True},
    "train": {"dataset_num_proc", "async_save"},
    **{"evaluate": True, "verdict": True},
}
"""What bears on no loss; the data are known by what they were encoded to."""
DONE = {"name", "weight", "per_step", "reward", "hint", "feedback"}
"""What a stream says of what becomes of its rows."""
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
            held_out, trained, known = _measured(draft, term, optimum.steps, go, say)
            given[term] = held_out
            on_training.setdefault(term, trained)
            how = "found in the cache" if known else f"measured in {optimum.steps} steps"
            say(f"optimum of {term}: {held_out:.6g}, on training rows {trained:.6g} ({how})")
    found = {"given": given, "on_training": on_training, "steps": None}
    return recipe.model_copy(update={"optimum": optimum.model_copy(update=found)})


def _measured(draft: Draft, term: str, steps: int, go: Go, say: Say) -> tuple[float, float, bool]:
    """The term's lowest held-out and training loss, and whether they were known."""
    single = alone(draft.recipe, term, list(draft.planned.schedule.weights), steps)
    given = single.model_dump(mode="json", exclude=UNASKED)
    stores = [store.folder.name for store in draft.stores.trained_and_evaluated()]
    # What rows were encoded to is in the names of their stores.
    parts = [stream.model_dump(mode="json", include=DONE) for stream in single.data]
    named = (single.model.name, models.adapter_base(single.model), single.reference)
    content = [
        given,
        stores,
        parts,
        [digest_of_model(name) for name in named],
        term,
        draft.plugins(),
    ]
    folder = draft.cache / "optimum" / digest_of(content)
    main = PartialState().is_main_process
    # Of runs that ask at once, one measures and the others wait. Each measures in a folder of its own,
    # so that nothing is mixed where they cannot wait for each other.
    with kept.alone(folder, say) if main else nullcontext():
        found = (
            [_known(folder, term, say), f".{folder.name}-{token_hex(4)}"] if main else [None, ""]
        )
        known, name = broadcast_object_list(found)
        if known:
            return *known, True
        run = folder.with_name(name)
        try:
            if go(single, run) != run / "model":
                raise RecipeError(f"stopped while f* of {term} was measured; nothing was begun")
            held_out, trained = _lowest(run, term)
            if main:
                _keep(run, folder, {"term": term, "held_out": held_out, "training": trained})
        finally:
            if main:
                shutil.rmtree(run, ignore_errors=True)
    return held_out, trained, False


def _keep(run: Path, folder: Path, found: Mapping[str, Any]) -> None:
    """What was found, beside what the run that found it has logged."""
    with kept.drafted(folder) as made:
        unneeded = shutil.ignore_patterns("model*", "checkpoints")
        shutil.copytree(run, made, dirs_exist_ok=True, ignore=unneeded)
        write_json(made / FILE, found)


def _known(folder: Path, term: str, say: Say) -> tuple[float, float] | None:
    """Lowest held-out and training loss, where they were measured and are as they were written."""
    if not os.path.lexists(folder):
        return None
    wrong = damage(folder)
    if wrong is None:
        found = read_json(folder / FILE)
        return float(found["held_out"]), float(found["training"])
    say(f"optimum of {term}: what was measured before is damaged ({wrong}); measured anew")
    return None


def digest_of_model(name: str | None) -> str:
    """Of a model folder's weights and settings; the name itself for a hub model."""
    folder = Path(name or "")
    if name is None or not folder.is_dir():
        return str(name)
    return models.digest_files(file for kind in KINDS for file in folder.glob(kind))


def _lowest(folder: Path, term: str) -> tuple[float, float]:
    """Lowest held-out loss (training loss where there are no such rows) and lowest training loss."""
    lines, damaged = json_lines(folder / "metrics.jsonl")
    if damaged:  # the lowest may be among them
        raise RecipeError(
            f"optimum: the run of {term} alone in {folder} has damaged metrics ({damaged} of its lines)"
        )
    losses = [line["loss"] for line in lines if "loss" in line]
    held_out = [line[f"eval/terms/{term}"] for line in lines if f"eval/terms/{term}" in line]
    if not losses or any(loss is None for loss in losses + held_out):
        raise RecipeError(f"optimum: the run of {term} alone in {folder} has no finite losses")
    return min(held_out or losses), min(losses)
