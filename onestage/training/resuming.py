"""A run that goes on is the run that was begun: its recipe is compared with the one given now.

What is not the same is refused, with both values, unless it is named (`--allow-changed KEY`) or bears
on no number that is trained. Which key is which stands here, in one place; a key that stands in no list
is one that changes the run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from onestage.config import RecipeError, nearest
from onestage.runfolder import read_json
from onestage.training.checkpoints import Checkpoints
from onestage.training.keep import OF_LOSSES
from onestage.training.recipe import Recipe
from onestage.training.same_run import CheckpointError

FREE = (
    *("description", "cache_dir", "model.trust_remote_code", "verdict.*", "evaluate", "evaluate.*"),
    *("train.logging_steps", "train.eval_steps", "train.save_steps", "train.save_total_limit"),
    *("train.report_to", "train.callbacks", "train.max_tokens", "train.bad_rows"),
    *("train.dataset_num_proc", "train.async_save"),
    *("rollout.alarm_after", "rollout.eval_temperature", "rollout.eval_generations"),
    *("distributed.sharding", "distributed.reshard_after_forward", "distributed.cpu_offload"),
    "distributed.activation_checkpointing",
)
"""What changes no number that is trained: how often it is looked at, kept and told of, where it ends,
and on how many devices it lies."""

BY_CONTENT = (
    *("model.name", "model.revision", "model.tokenizer", "model.chat_template", "reference"),
    *("data.*.path", "data.*.split", "data.*.subset", "data.*.streaming"),
)
"""Where something lies. What lies there is compared when the checkpoint is opened
(`checkpoints.resume`), so that a folder may be moved."""

CONTENTS = ("data.", "reference")
"""Keys under which content that changed is recorded."""

FIXED = {
    "train.optim": "the state of one optimiser does not fit another",
    "train.average": "the average of the steps before would be missing",
    "model.lora": "the checkpoint's weights are of another shape",
    "model.lora.r": "the checkpoint's adapters are of another shape",
    "model.lora.target_modules": "the checkpoint's adapters are of other modules",
    "model.config": "the checkpoint's weights are of another model",
    "model.task": "the checkpoint's weights are of another sort of model",
    "model.adapter": "the run began from another model",
    "model.dtype": "the checkpoint's weights are held in another precision",
    "model.load_in_4bit": "the checkpoint's weights are held in another precision",
}
"""What nobody can apply to a run under way, and why."""

LENGTH = "train.max_steps"
ENDLESS = ("constant", "constant_with_warmup", "inverse_sqrt")
"""Learning rates whose course does not ask how long the run is."""
WITHOUT_LENGTH = (
    *("proportional", "mix", "alright", "chord", "maxright", "smooth_maxright"),
    *("famo", "dynamic_average", "uncertainty", "surgery", "raco", "nash_mtl", "epo", "gac"),
)
"""Schedules that do not ask how long the run is."""

ABSENT = object()
Difference = tuple[str, tuple[Any, Any]]
"""A key, and what was and is there."""

_DEFAULT = {
    name: Recipe.model_fields[name].default for name in ("objective", "schedule", "reference")
}


@dataclass
class Changes:
    """What a run is told, and what of it is not as it was when the run was begun."""

    recipe: Mapping[str, Any] = field(default_factory=dict)
    """All of it, as plain content without defaults."""
    allowed: Sequence[str] = ()
    """Keys, or sections of them, that may have changed."""
    keys: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    """What has: as it was, as it is."""
    before: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """What was allowed to change since the checkpoint was saved: as it was, as it is since then."""

    def allows(self, key: str) -> bool:
        named = any(key == one or key.startswith(f"{one}.") for one in self.allowed)
        return named or self._known(key)

    def _known(self, key: str) -> bool:
        return key in self.before and self.before[key][1] == _shown(self.keys[key][1])

    def notes(self, key: str, was: Any, now: Any) -> bool:
        """Take in what was found to lie at a place; returns whether it changed and may not."""
        if was == now:
            return False
        self.keys[key] = (was, now)
        return not self.allows(key)

    def lines(self) -> list[str]:
        return [f"{key}: {_line(*values)}{self._why(key)}" for key, values in self.keys.items()]

    def _why(self, key: str) -> str:
        why = by_length(self.recipe) if key == LENGTH else ""
        return f"; not the steps of one run of that length, which bears on {why}" if why else ""

    def record(self, step: int) -> dict[str, Any]:
        """The entry of `manifest.json`."""
        new = {key: values for key, values in self.keys.items() if not self._known(key)}
        keys = {key: list(map(_shown, values)) for key, values in new.items()}
        return {"step": step, "date": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", "keys": keys}


def changes_of(
    out: Path, recipe: Mapping[str, Any], whole: Mapping[str, Any], allowed: Sequence[str]
) -> Changes:
    """What the recipe that is given changes in the run that goes on in `out`.

    recipe, whole: without and with what is as it is by default; allowed: keys that may change. Raises
    `CheckpointError` with all that must not, or cannot, and `RecipeError` for a key that there is not.
    """
    step, was = _told(out)
    known = {*_places(whole), *_places(was)}
    for key in allowed:
        if key not in known:
            raise RecipeError(f"--allow-changed: no key {key!r}{nearest(key, known)}")
    found = {k: v for k, v in differences(was, recipe) if not _matches(k, BY_CONTENT)}
    before = _recorded(out, step)
    # What was changed since the checkpoint, and is now as the checkpoint has it, has changed back.
    back = {k: (now, then) for k, (then, now) in before.items() if k not in found and then != now}
    found |= {k: v for k, v in back.items() if not k.startswith(CONTENTS)}
    changes = Changes(recipe, allowed, found, before)
    for key, values in found.items():
        if key in FIXED:
            raise CheckpointError(
                f"{key} cannot change in a run that is under way ({_line(*values)}): {FIXED[key]}; put "
                "it back, or choose another --out"
            )
    refused = [key for key in found if not (is_free(key, was, recipe) or changes.allows(key))]
    if refused:
        lines = [f"{key}: {_line(*found[key])}{bears(key, was, recipe)}" for key in refused]
        raise CheckpointError(
            f"the run in {out} was begun with another recipe (was -> is):\n"
            + "\n".join(lines)
            + f"\nput it back, or go on with what is new: --resume {permission(refused)}"
        )
    return changes


def bears(key: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Why the length of a run may not just change, in words."""
    why = (by_length(was) or by_length(now)) if key == LENGTH else ""
    return f" (it bears on {why})" if why else ""


def permission(keys: Sequence[str]) -> str:
    """What to type, to go on with changes of these keys."""
    return " ".join(f"--allow-changed {key}" for key in keys)


def told_apart(was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What bears on numbers and differs in two recipes, in a line; empty where nothing does."""
    found = differences(was, now)
    return ", ".join(f"{k}: {_line(*v)}" for k, v in found if not is_free(k, was, now))


def differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Difference]:
    """Where two recipes (plain content without defaults) differ, and what stands there in each."""
    start = {name: _DEFAULT.get(name, {}) for name in {**was, **now}}
    before, after = _acting({**start, **was}, {**start, **now})
    yield from _apart(before, after)


def is_free(key: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a key may change: it bears on no number that is trained."""
    longer = key == LENGTH and not (by_length(was) or by_length(now))
    return longer or _matches(key, FREE)


def _apart(was: Any, now: Any, place: str = "") -> Iterator[Difference]:
    was, now = _alike(was, now), _alike(now, was)
    if not (isinstance(was, Mapping) and isinstance(now, Mapping)):
        was, now = (_default(place) if one is ABSENT else one for one in (was, now))
        if was != now:
            yield place, (was, now)
        return
    order = [[key for key in one if key in was and key in now] for one in (was, now)]
    # In which order streams stand decides the order of their records in a step.
    if place == "data" and order[0] != order[1]:
        yield place, (order[0], order[1])
    for key in {**was, **now}:
        inside = f"{place}.{key}".lstrip(".")
        yield from _apart(was.get(key, ABSENT), now.get(key, ABSENT), inside)


def _default(place: str) -> Any:
    """What stands at a place where nothing was given, if the recipe's own sections say so."""
    first, *rest = place.split(".")
    found = Recipe.model_fields[first].default if first in Recipe.model_fields else ABSENT
    for name in rest:
        found = getattr(found, name, ABSENT)
    return found


def _alike(one: Any, other: Any) -> Any:
    """A choice by its name as a table, and streams by their names, so that keys meet."""
    if isinstance(one, str) and isinstance(other, Mapping) and "name" in other:
        return {"name": one}
    tables = isinstance(one, list) and all(isinstance(item, Mapping) for item in one)
    names = [item.get("name") for item in one] if tables else []
    if names and None not in names and len(set(names)) == len(names):
        return {item["name"]: {k: v for k, v in item.items() if k != "name"} for item in one}
    return one


def _acting(*recipes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The recipes, with their probes and guards only where one of these changes a weight."""
    act = any(one.get("then") == "raise" for recipe in recipes for one in recipe.get("guard", ()))
    left = () if act else ("probe", "guard")
    return [{key: one for key, one in recipe.items() if key not in left} for recipe in recipes]


def by_length(recipe: Mapping[str, Any]) -> str:
    """What of a run depends on how many steps there will be, in words; nothing where a longer run begins
    with the steps of a shorter one."""
    train, schedule = recipe.get("train", {}), recipe.get("schedule", "proportional")
    name = schedule.get("name") if isinstance(schedule, Mapping) else schedule
    rate = train.get("lr_scheduler_type", "linear")
    warming = train.get("warmup_ratio", 0) and not train.get("warmup_steps", 0)
    if rate not in ENDLESS:
        return f"the learning rate of each step (lr_scheduler_type: {rate}; constant does not)"
    if warming and rate != "constant":
        return "how long the learning rate rises (warmup_ratio; warmup_steps does not)"
    if name not in WITHOUT_LENGTH:
        return f"the schedule ({name})"
    if train.get("average") == "tail":
        return "where the average begins (average: tail; ema does not)"
    if any(one.get("what") not in OF_LOSSES and not one.get("items") for one in _keeps(recipe)):
        return "how many items of a suite are watched (keep.share; keep.items does not)"
    return ""


def _keeps(recipe: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    keeps = recipe.get("keep") or ()
    return [keeps] if isinstance(keeps, Mapping) else keeps


def _told(out: Path) -> tuple[int, dict[str, Any]]:
    """The step of the newest checkpoint, and the recipe with which it was made."""
    progress = json.loads((Checkpoints(out).newest() / "progress.json").read_text())
    recipe, file = progress.get("recipe"), out / "recipe.yaml"
    try:
        if recipe is None:  # of an earlier version
            recipe = dict(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        problem = " ".join(str(error).split())
        raise CheckpointError(
            f"--resume: {file} says how the run was begun and cannot be read ({problem}); put it back"
        ) from error
    return progress["step"], recipe


def _recorded(out: Path, step: int) -> dict[str, tuple[str, str]]:
    """What was allowed to change since the newest checkpoint was saved, which does not know of it."""
    file, found = out / "manifest.json", dict[str, tuple[str, str]]()
    for entry in read_json(file).get("changed", []) if file.is_file() else ():
        for key, (was, now) in entry["keys"].items() if entry["step"] >= step else ():
            found[key] = (found.get(key, (was, now))[0], now)
    return found


def _places(content: Any, place: str = "") -> Iterator[str]:
    """The keys of a recipe, and of its sections."""
    content = _alike(content, None)
    if place:
        yield place
    if isinstance(content, Mapping):
        for key, one in content.items():
            yield from _places(one, f"{place}.{key}".lstrip("."))


def _matches(key: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def _line(was: Any, now: Any) -> str:
    return f"{_shown(was)} -> {_shown(now)}"


def _shown(value: Any) -> str:
    return "(not given)" if value is ABSENT else str(value)
