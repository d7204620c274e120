"""The study file: which recipes are compared, where, on how much, and how they are tuned.

    world: {name: lab}
    seeds: [0, 1, 2, 3, 4]
    budget: {updates: 192}
    recipe: {model: {name: "{base}"}, data: [...], train: {learning_rate: "{rate}"}}
    methods:
      SFT: {streams: [demonstrations], objective: sft, try: {rate: [1e-4, 3e-4, 1e-3]}}
      UFT: {objective: {name: uft, beta: "{beta}"}, try: {rate: [3e-4], beta: [.01, .1, 1.]}}
    tune: {seeds: [100], metric: overall}

A method is a recipe laid over the common one. `{name}` in either stands for a variable: an axis of the
study, or a value that tuning chooses. What would make the comparison unfair is refused here: budgets of
a method's own, more trials for one method than for another, tuning on a seed that is reported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from onestage.config import RecipeError, Section, as_numbers, checked, nearest, override, read_yaml
from onestage.runfolder.secrets import secrets
from onestage.studies.claim import Claim
from onestage.studies.variables import used

GIVEN = ("base", "data", "seed", "split")
"""Variables that the study itself fills in: model folder, data folder, seed, and the split that is
judged (validation where values are chosen, test else)."""

COLUMNS = {
    *("purpose", "method", "cell", "metric", "value", "choice", "step"),
    *("mean", "low", "high", "sd", "n", "against", "difference", "p", "p_holm"),
}
"""What tables have beside an axis; one of the same name would be lost in them."""

RECIPE = (
    "a file with a model at its top is a recipe: onestage train FILE; a study has world, seeds, methods "
    "and what they share under recipe"
)


class StudyError(ValueError):
    """A study that cannot be done: says what was given and what is allowed."""


class Method(BaseModel):
    """One way to train: sections of a recipe laid over the study's common one."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    streams: list[str] | None = Field(default=None, min_length=1)
    """Of the common `data`, those it uses; default: all."""
    try_: dict[str, list[Any]] = Field(default={}, alias="try")
    """Variables that tuning chooses, and the values tried: their whole grid."""
    evaluate: Literal["model", "last_adapter"] = "model"
    """What is judged: the model that training leaves, or its last adapter put on the base alone, as
    where an earlier stage's adapter is lost on reload (suspected of UFT's published chains)."""
    judge_after: list[str] = []
    """Stages after which the model is judged, too, as `after/STAGE/METRIC`; and `left/STAGE/METRIC` is
    the share of it that the whole chain ends with."""
    note: str = ""
    """For readers."""

    @property
    def sections(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    @property
    def trials(self) -> int:
        return math.prod(len(values) for values in self.try_.values())


class Budget(Section):
    """What every method may spend: exactly one of these."""

    updates: int | None = Field(default=None, ge=1)
    """Optimiser steps, over all stages."""
    tokens: int | None = Field(default=None, ge=1)
    """Tokens trained on, over all stages; steps are set by the data's mean tokens a step."""

    @model_validator(mode="after")
    def _one(self) -> Budget:
        if (self.updates is None) == (self.tokens is None):
            raise ValueError("give exactly one of updates and tokens")
        return self


class Tune(Section):
    """How values are chosen: on the validation split of seeds that are not reported."""

    seeds: list[int] = Field(min_length=1)
    metric: str = "overall"
    trials: int | None = Field(default=None, ge=1)
    """Trials of every method; drawn from its grid where that is larger. Default: all grids whole, which
    then must be of one size."""
    at_least: dict[str, float] = {}
    """Metrics (better higher) and the share of the best trial's of any method that a choice must reach:
    `{truth: 0.9}` compares what methods keep at equal gain."""
    at_most: dict[str, float] = {}
    """Metrics (better lower) and the largest mean that a choice may have: `{keep/text/held_out: 0.05}`
    compares what methods gain under one bound. A method with nothing to choose is reported as it is."""
    at: dict[str, Any] = {}
    """Where on the axes tuning takes place; default: their first values."""
    widen: int = Field(default=0, ge=0)
    """Values that a grid may gain at its edges, one at a time, until no choice lies on one."""
    report: Literal["chosen", "likely", "all"] = "chosen"
    """`likely`: settings that other draws of the tuning seeds would have chosen are run on the reported
    seeds, too, so that intervals include the choice. `all`: every setting, so that methods can be
    compared at equal gain."""


class Front(Section):
    """Two metrics whose trade-off is drawn; for losses over an axis also measured."""

    x: str
    y: str
    over: str | None = None
    """An axis: the front of a method is over its values. Adds gaps, ideal distance, hypervolume."""


class Resources(Section):
    """What a cell takes of a node of a cluster; on one machine `--jobs` says how many run at once."""

    cpus: int = Field(default=1, ge=1)
    """Cores, and so threads."""
    gpus: float | None = Field(default=None, ge=0, le=1)
    """A cell is one process, which uses one GPU, or a part of one that it shares. Default: 1 where any
    node has a GPU, or else 0."""


class StudyFile(Section):
    name: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*$")
    description: str = ""
    world: dict[str, Any]
    """`name` of a world and its options."""
    base: str | None = "base"
    """The name under which the model that all start from is evaluated; null: it is not."""
    seeds: list[int] = Field(min_length=1)
    axes: dict[str, list[Any]] = {}
    """Variables that the study varies and reports, and their values."""
    budget: Budget | None = None
    recipe: dict[str, Any]
    methods: dict[str, Method] = Field(min_length=1)
    tune: Tune | None = None
    headline: list[str] = []
    """Metrics of the main table; default: the world's."""
    front: Front | None = None
    claims: list[Claim] = []
    keep_models: bool = False
    """Keep the weights that cells end with (of tests, not of trials)."""
    resources: Resources = Resources()

    @model_validator(mode="after")
    def _fair(self) -> StudyFile:
        for found in secrets(self.model_dump(exclude_unset=True)):
            raise ValueError(found)
        _shaped("recipe", self.recipe)
        for name, method in self.methods.items():
            _shaped(f"methods.{name}", method.sections)
        _different("seeds", self.seeds)
        for name, values in self.axes.items():
            _different(f"axes.{name}", values)
            if name in GIVEN:
                raise ValueError(f"axes.{name}: {', '.join(GIVEN)} are filled in by the study")
            if name in COLUMNS:
                raise ValueError(
                    f"axes.{name}: is a column of the study's tables; name the axis otherwise"
                )
        if self.base in self.methods:
            raise ValueError(f"base: {self.base!r} is also the name of a method")
        for name, method in self.methods.items():
            self._variables(name, method)
            _known_stages(name, method, self.recipe)
        if self.budget is not None:
            for name, method in self.methods.items():
                _no_own_budget(name, method, self.recipe)
        self._tuning()
        return self

    def variables(self, method: str) -> list[str]:
        """The axes that a method depends on, by its recipe or its world, in order."""
        content = [self.world, self.recipe, self.methods[method].sections]
        found = used(content)
        return [axis for axis in self.axes if axis in found]

    def world_axes(self) -> list[str]:
        """The axes that change the ground, for the base as for all methods."""
        found = used(self.world)
        return [axis for axis in self.axes if axis in found]

    def _variables(self, name: str, method: Method) -> None:
        known = {*GIVEN, *self.axes, *method.try_}
        found = used([self.world, self.recipe, method.sections])
        for variable in sorted(found - known):
            raise ValueError(
                f"methods.{name}: {{{variable}}} stands for nothing{nearest(variable, sorted(known))}"
            )
        for variable, values in method.try_.items():
            _different(f"methods.{name}.try.{variable}", values)
            if variable in self.axes or variable in GIVEN:
                raise ValueError(
                    f"methods.{name}.try.{variable}: is no variable of the method's own"
                )
            if variable not in found:
                raise ValueError(
                    f"methods.{name}.try.{variable}: nothing in the recipe uses {{{variable}}}"
                )
            if not values:
                raise ValueError(f"methods.{name}.try.{variable}: has no value")

    def _tuning(self) -> None:
        tried = {name: method.trials for name, method in self.methods.items() if method.try_}
        if self.tune is None:
            several = [name for name, trials in tried.items() if trials > 1]
            if several:
                raise ValueError(f"methods.{several[0]}.try: has several values; add tune")
            return
        both = sorted(set(self.tune.seeds) & set(self.seeds))
        if both:
            raise ValueError(
                f"tune.seeds: {both} are also reported; tune on seeds that are not, or the best of "
                "many trials is reported as the mean"
            )
        if self.tune.widen and self.tune.trials is not None:
            raise ValueError("tune.widen: takes whole grids; leave tune.trials out")
        for metric, share in self.tune.at_least.items():
            if not 0 < share <= 1:
                raise ValueError(f"tune.at_least.{metric}: must be in (0, 1], got {share}")
        for axis in self.tune.at:
            if axis not in self.axes:
                raise ValueError(f"tune.at: {axis!r} is no axis{nearest(axis, list(self.axes))}")
        sizes = set(tried.values()) - {1}
        if self.tune.trials is None and len(sizes) > 1:
            raise ValueError(
                f"methods: {tried} trials; the comparison is fair only with as many for each: give "
                "them grids of one size, or tune.trials to draw as many from each"
            )
        few = [name for name in tried if 1 < tried[name] < (self.tune.trials or 0)]
        if few:
            raise ValueError(
                f"methods.{few[0]}.try: {tried[few[0]]} trials, fewer than tune.trials "
                f"({self.tune.trials})"
            )


def _shaped(place: str, content: Mapping[str, Any]) -> None:
    """Raise where what a study itself reads of a recipe is no such thing."""
    for key in ("data", "stages"):
        value = content.get(key)
        by_name = key == "data" and isinstance(value, dict)
        named = isinstance(value, list) and all(
            isinstance(one, dict) and isinstance(one.get("name"), str) for one in value
        )
        if not (value is None or by_name or named):
            raise ValueError(f"{place}.{key}: must be a list of tables, each with a name")
    stages = content.get("stages") or []
    for one in (content, *stages):
        if not isinstance(one.get("train") or {}, dict):
            raise ValueError(f"{place}: train must be a table of options, got {one['train']!r}")


def _known_stages(name: str, method: Method, recipe: Mapping[str, Any]) -> None:
    """Raise where a method is to be judged after a stage that it does not have."""
    known = [one["name"] for one in method.sections.get("stages") or recipe.get("stages") or []]
    for one in method.judge_after:
        if one not in known:
            raise ValueError(f"methods.{name}.judge_after: no stage {one!r}{nearest(one, known)}")


def _different(place: str, values: Sequence[Any]) -> None:
    twice = [value for n, value in enumerate(values) if value in values[:n]]
    if twice:
        raise ValueError(f"{place}: {twice[0]!r} stands there twice")


def _no_own_budget(name: str, method: Method, recipe: Mapping[str, Any]) -> None:
    """Raise where a method, one of its stages or the common recipe sets its own length."""
    stages = {f".stages.{s.get('name')}": s for s in method.sections.get("stages") or []}
    places = {"recipe": recipe, f"methods.{name}": method.sections}
    places |= {f"methods.{name}{key}": stage for key, stage in stages.items()}
    for place, content in places.items():
        train = content.get("train") or {}
        for key in ("max_steps", "max_tokens", "num_train_epochs"):
            if key in train:
                raise ValueError(
                    f"{place}.train.{key}: the study's budget says how long all train; stages divide "
                    "it by their share"
                )


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> StudyFile:
    """Read a study file and apply `section.key=value` overrides (values are YAML)."""
    try:
        content = read_yaml(Path(path), "study file", StudyFile.model_fields)
        for one in overrides:
            override(content, one)
        return parse_study(content)
    except RecipeError as error:
        raise StudyError(str(error)) from error


def parse_study(content: Mapping[str, Any]) -> StudyFile:
    """Check a study given as plain data."""
    if "model" in content:
        raise StudyError(RECIPE)
    return checked(StudyFile, as_numbers(dict(content)), StudyError)
