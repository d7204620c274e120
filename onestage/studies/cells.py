"""Cells: one method, with one value of everything, on one seed. A study is a list of them.

A study's budget becomes `train.max_steps` of a cell's recipe and of its stages. How many tokens a step
holds depends on the data and the schedule, so the steps for a number of tokens are found from the run's
own plan, counted as a run counts them; what a run really trained on is reported with its results.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from random import Random
from typing import Any, Literal

from onestage.config import RecipeError
from onestage.runfolder import digest_of
from onestage.studies import worlds
from onestage.studies.file import StudyError, StudyFile
from onestage.studies.variables import filled
from onestage.studies.worlds import Split
from onestage.training.budget import tokens_a_step
from onestage.training.plan import stages_of
from onestage.training.recipe import parse_recipe

Purpose = Literal["tune", "test", "grid"]
Judged = Literal["model", "last_adapter"]
SPLIT: dict[Purpose, Split] = {"tune": "validation", "test": "test", "grid": "test"}
"""`grid`: a setting that tuning did not choose, on a reported seed."""


@dataclass(frozen=True)
class Cell:
    """Everything that decides what a cell finds is in here; its folder is called by its name."""

    method: str
    """The study's name for the base stands here, too: a cell that is only evaluated."""
    purpose: Purpose
    seed: int
    axes: Mapping[str, Any]
    choice: Mapping[str, Any]
    """Values that tuning tries here, or has chosen."""
    world: Mapping[str, Any]
    recipe: Mapping[str, Any] | None
    """With `{base}`, `{data}` still open; None: nothing is trained."""
    budget: Mapping[str, int]
    judged: Judged = "model"
    after: tuple[str, ...] = ()
    """Stages after which the model is judged, too."""
    contents: str = ""
    """What lies where its world and recipe point to (`contents`). Not in the digest, as the exam."""

    @property
    def first_stage(self) -> str | None:
        """The same of all chains that begin with one run; None of what is no chain."""
        if self.recipe is None or not self.recipe.get("stages"):
            return None
        rest = {key: value for key, value in self.recipe.items() if key != "stages"}
        stages = self.recipe["stages"]
        part = _parts([stage.get("share") for stage in stages])[0]
        length = [self.budget, part] if self.budget else []
        return digest_of([self.world, self.seed, rest, {**stages[0], "share": 0}, length])

    @property
    def name(self) -> str:
        values = self.axes if self.purpose == "test" else {**self.axes, **self.choice}
        parts = [self.method, *(f"{name}={value}" for name, value in values.items())]
        front = "" if self.purpose == "test" else f"{self.purpose}-"
        return front + "-".join(slug(part) for part in [*parts, f"seed={self.seed}"])

    @property
    def split(self) -> Split:
        return SPLIT[self.purpose]

    @property
    def digest(self) -> str:
        """Changes with everything that could change the result, a stranger's world's file included."""
        parts: list[Any] = [
            self.world,
            self.recipe,
            self.budget,
            self.seed,
            self.split,
            self.judged,
        ]
        parts += [list(self.after)] if self.after else []
        theirs = worlds.PLUGINS.locate(self.world["name"]).digest
        return digest_of([*parts, theirs] if theirs else parts)

    @property
    def exam(self) -> int:
        """Which exam of its world judges it. Not in the digest, so that older cells are found."""
        found: int = worlds.PLUGINS.find(self.world["name"]).exam
        return found

    def describe(self) -> dict[str, Any]:
        """As `cell.json` has it."""
        return {
            "name": self.name,
            "method": self.method,
            "purpose": self.purpose,
            "seed": self.seed,
            "axes": dict(self.axes),
            "choice": dict(self.choice),
            "digest": self.digest,
            "exam": self.exam,
            "contents": self.contents,
        }


def slug(text: str) -> str:
    """A part of a folder's name."""
    return re.sub(r"[^A-Za-z0-9.=]+", "_", text).strip("_") or "_"


def trials(study: StudyFile) -> list[Cell]:
    """The cells that tuning looks at: as many of every method that has something to try."""
    if study.tune is None:
        return []
    at = {axis: study.tune.at.get(axis, values[0]) for axis, values in study.axes.items()}
    cells = []
    for name in study.methods:
        grid = choices(study, name)
        if len(grid) < 2:
            continue
        axes = {axis: at[axis] for axis in study.variables(name)}
        for seed in study.tune.seeds:
            cells += [_cell(study, name, "tune", seed, axes, choice) for choice in grid]
    return _distinct(cells)


def choices(study: StudyFile, method: str) -> list[dict[str, Any]]:
    """What tuning tries of a method: its grid, or as many of it as the study says."""
    given = study.methods[method].try_
    grid = [dict(zip(given, values, strict=True)) for values in product(*given.values())]
    most = study.tune.trials if study.tune else None
    if most is None or len(grid) <= most:
        return grid
    # Of names alone, so that a study that is gone on with tries the same values.
    drawn = sorted(Random(f"{study.name}/{method}/trials").sample(range(len(grid)), most))
    return [grid[number] for number in drawn]


def reported(study: StudyFile, chosen: Mapping[str, Mapping[str, Any]]) -> list[Cell]:
    """The cells that are reported, of the methods that values were chosen for, and of the base."""
    cells = []
    for seed in study.seeds:
        if study.base is not None:
            for axes in _grid(study, study.world_axes()):
                cells.append(_cell(study, study.base, "test", seed, axes, {}))
        for name in study.methods:
            if name in chosen:
                for axes in _grid(study, study.variables(name)):
                    cells.append(_cell(study, name, "test", seed, axes, chosen[name]))
    return _distinct(cells)


def unchosen(
    study: StudyFile,
    chosen: Mapping[str, Mapping[str, Any]],
    likely: Mapping[str, Sequence[Mapping[str, Any]]],
) -> list[Cell]:
    """The settings that were not chosen, on the seeds that are reported: with `tune: {report: all}`
    each, also where none of a method was; with `likely` those that might have been, which are given."""
    if study.tune is None or study.tune.report == "chosen":
        return []
    every = study.tune.report == "all"
    might = {name: some for name, some in likely.items() if name in chosen}
    return _distinct(
        [
            _cell(study, name, "grid", seed, axes, choice)
            for name in study.methods
            for choice in choices(study, name)
            if choice != chosen.get(name) and (every or choice in might.get(name, ()))
            for seed in study.seeds
            for axes in _grid(study, study.variables(name))
        ]
    )


def _grid(study: StudyFile, axes: list[str]) -> list[dict[str, Any]]:
    return [
        dict(zip(axes, values, strict=True))
        for values in product(*(study.axes[axis] for axis in axes))
    ]


def _cell(
    study: StudyFile,
    method: str,
    purpose: Purpose,
    seed: int,
    axes: Mapping[str, Any],
    choice: Mapping[str, Any],
) -> Cell:
    values = {**axes, **choice, "seed": seed, "split": SPLIT[purpose]}
    recipe: dict[str, Any] | None = None
    judged: Judged = "model"
    after: tuple[str, ...] = ()
    if method in study.methods:
        judged, after = study.methods[method].evaluate, tuple(study.methods[method].judge_after)
        try:
            recipe = filled(recipe_of(study, method), values)
        except ValueError as error:
            raise StudyError(f"methods.{method}: {error}") from error
    budget = study.budget.model_dump(exclude_none=True) if study.budget and recipe else {}
    world = filled(study.world, values)
    given = method, purpose, seed, dict(axes), dict(choice), world, recipe, budget, judged, after
    return Cell(*given)


def recipe_of(study: StudyFile, method: str) -> dict[str, Any]:
    """A method's recipe with its variables open: its sections laid over the common ones."""
    given = study.methods[method]
    content = merged(study.recipe, given.sections)
    if given.streams is not None:
        data = content.get("data") or []
        known = [one if isinstance(data, dict) else one["name"] for one in data]
        for name in given.streams:
            if name not in known:
                raise StudyError(f"streams: no stream {name!r} among {known}")
        if isinstance(data, dict):
            content["data"] = {name: data[name] for name in data if name in given.streams}
        else:
            content["data"] = [one for one in data if one["name"] in given.streams]
    return content


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Sections laid over each other: keys of sections that are tables, and streams of `data` by name.

    `objective` and `schedule` are choices and are replaced whole.
    """
    found = dict(under)
    for key, value in over.items():
        below = found.get(key)
        if key == "data" and isinstance(below, list) and isinstance(value, dict):
            found[key] = _streams(below, value)
        elif key not in ("objective", "schedule") and isinstance(below, dict):
            found[key] = {**below, **value} if isinstance(value, dict) else value
        else:
            found[key] = value
    return found


def _streams(below: list[Any], over: Mapping[str, Any]) -> list[Any]:
    """`data: {pairs: {weight: .5}}` changes single keys of a common stream."""
    known = [stream["name"] for stream in below]
    for name in over:
        if name not in known:
            raise StudyError(f"data.{name}: no stream of that name among {known}")
    return [{**stream, **over.get(stream["name"], {})} for stream in below]


def _distinct(cells: list[Cell]) -> list[Cell]:
    """Raise where two cells would share a folder."""
    seen: dict[str, Cell] = {}
    for cell in cells:
        other = seen.setdefault(cell.name, cell)
        if other is not cell:
            raise StudyError(
                f"two cells have the name {cell.name}: of {other.method!r} "
                f"{dict(other.axes) | dict(other.choice)} and of {cell.method!r} "
                f"{dict(cell.axes) | dict(cell.choice)}; folders need names that differ in letters, "
                "digits, points or ="
            )
    return cells


SAMPLE = 200
"""Steps of the plan that tokens a step are taken from."""


def within(recipe: Mapping[str, Any], budget: Mapping[str, int]) -> dict[str, Any]:
    """The recipe with its lengths filled in. Stages have a `share` each, equal ones by default.

    Raises `RecipeError` for shares that are none, and for a budget of tokens where they cannot be known.
    """
    stages = [dict(stage) for stage in recipe.get("stages") or []]
    shares = [stage.pop("share", None) for stage in stages]
    content = {**recipe, **({"stages": stages} if stages else {})}
    if not budget:
        if any(share is not None for share in shares):
            raise RecipeError("stages: a share divides a budget, but the study has none")
        return content
    if not stages:
        return _long(content, _steps(budget, 1.0, _long(content, SAMPLE), None))
    tried = {**content, "stages": [_long(stage, SAMPLE) for stage in stages]}
    lengths = [_steps(budget, part, tried, n) for n, part in enumerate(_parts(shares))]
    return {**content, "stages": [_long(*one) for one in zip(stages, lengths, strict=True)]}


def require_whole(cell: Cell) -> None:
    """Raise what can be seen of a cell's recipe, and of its stages, before there are data or a base:
    `RecipeError` or `ValueError`."""
    # To turn tokens into steps takes the data; for what is checked here any length will do.
    short = {"updates": 1000} if cell.budget else {}
    # What becomes of an adapter between stages depends on whether the base is one.
    base = {"base": cell.world["model"]} if "model" in cell.world else {}
    stages_of(parse_recipe(within(filled(cell.recipe, base), short)), Path())


def _long(content: Mapping[str, Any], steps: int) -> dict[str, Any]:
    return {**content, "train": {**content.get("train", {}), "max_steps": steps}}


def _parts(shares: list[Any]) -> list[float]:
    if all(share is None for share in shares):
        return [1 / len(shares)] * len(shares)
    good = all(isinstance(s, int | float) and not isinstance(s, bool) and s > 0 for s in shares)
    if not good:
        raise RecipeError(f"stages: share must be a positive number for each stage, got {shares}")
    return [share / sum(shares) for share in shares]


def _steps(
    budget: Mapping[str, int], part: float, tried: Mapping[str, Any], stage: int | None
) -> int:
    """Steps of a part of the budget, for the recipe `tried` or one of its stages."""
    if "updates" in budget:
        return max(1, round(part * budget["updates"]))
    return max(1, round(part * budget["tokens"] / tokens_a_step(tried, stage)))
