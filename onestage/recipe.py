"""The recipe: everything a run is told, checked before anything happens.

YAML, Python and `--set section.key=value` share these names, which follow transformers and TRL where
those have one. An unknown key is refused with the nearest known one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from onestage.nearest import nearest
from onestage.options import (
    DataOptions,
    GuardOptions,
    ModelOptions,
    ObjectiveChoice,
    OptimumOptions,
    ProbeOptions,
    RolloutOptions,
    ScheduleChoice,
    Section,
    StageOptions,
    TrainOptions,
)
from onestage.records.record import KINDS


class RecipeError(ValueError):
    """A recipe that cannot be run: says what was given and what is allowed."""


class Recipe(Section):
    model: ModelOptions
    data: list[DataOptions] = Field(min_length=1)
    objective: ObjectiveChoice = "uft"
    """A name, a table `{name: dpo, beta: 0.1}`, or a map from kind or stream name to either."""
    schedule: ScheduleChoice = "proportional"
    """A name, or a table `{name: alright, weights: {dpo: 0.25, sft: 0.75}}` with its options."""
    probe: ProbeOptions | None = None
    guard: list[GuardOptions] = []  # noqa: RUF012 - pydantic copies it
    optimum: OptimumOptions | None = None
    rollout: RolloutOptions = Field(default_factory=lambda: RolloutOptions.model_validate({}))
    train: TrainOptions = Field(default_factory=lambda: TrainOptions.model_validate({}))
    reference: str = "start"
    """The model that losses compare with: `start`, the one the run starts from, or a folder or hub id
    of another with the same vocabulary."""
    stages: list[StageOptions] | None = Field(None, min_length=1)
    """Runs one after another, each from the model of the one before. See docs/stages.md."""
    cache_dir: str | None = None
    """Encoded data and reference log-probabilities; default $ONESTAGE_CACHE or ~/.cache/onestage."""
    description: str = ""
    """For people: what the recipe is, hardware, time, the number to expect."""

    @model_validator(mode="after")
    def _names(self) -> Recipe:
        names = [stream.name for stream in self.data]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"data: stream names must differ, found {twice} more than once")
        evaluated = any(stream.eval_path or stream.eval_split for stream in self.data)
        if self.train.eval_steps and not evaluated:
            raise ValueError("train.eval_steps needs a stream with eval_path or eval_split")
        if self.guard and self.probe is None:
            raise ValueError("guard: watches what the probe measures; add a probe section")
        hinted = [s.name for s in self.data if s.hint != "none" or s.feedback == "pair"]
        unjudged = sorted({s.name for s in self.data if s.reward is None} & set(hinted))
        if unjudged:
            raise ValueError(
                f"data: {unjudged} have a hint or feedback: pair but no reward; only answers of the "
                "policy are hinted and paired"
            )
        clash = sorted(set(names) & set(KINDS))
        if clash and isinstance(self.objective, dict) and set(clash) & set(self.objective):
            raise ValueError(f"data: {clash} name both a stream and a kind in the objective map")
        return self


def named(given: Any, what: str) -> tuple[str, dict[str, Any]]:
    """Name and options of a choice: given as a name, or as a table with a `name`."""
    options = {"name": given} if isinstance(given, str) else given
    if not isinstance(options, dict) or not isinstance(options.get("name"), str):
        raise RecipeError(f"{what}: expected a name or {{name: ..., options}}, got {given!r}")
    return options["name"], {key: value for key, value in options.items() if key != "name"}


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a YAML recipe and apply `section.key=value` overrides (values are YAML)."""
    file = Path(path)
    try:
        content = yaml.safe_load(file.read_text())
    except FileNotFoundError as error:
        raise RecipeError(f"no recipe at {file}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{file} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise RecipeError(
            f"{file}: a recipe is a mapping with the keys {list(Recipe.model_fields)}"
        )
    for one in overrides:
        override(content, one)
    return parse_recipe(content)


def parse_recipe(content: Mapping[str, Any]) -> Recipe:
    """Check a recipe given as plain data."""
    try:
        return Recipe.model_validate(dict(content))
    except ValidationError as error:
        raise RecipeError("\n".join(explain(problem) for problem in error.errors())) from error


def override(content: dict[str, Any], given: str) -> None:
    """Apply one `section.key=value` to plain data."""
    key, equals, value = given.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set {given!r}: expected section.key=value")
    *sections, last = key.split(".")
    target: Any = content
    for section in sections:
        if isinstance(target, list):
            target = _item(target, section, given)
            continue
        if isinstance(target.get(section), str) and section in ("objective", "schedule"):
            target[section] = {"name": target[section]}
        target = target.setdefault(section, {})
        if not isinstance(target, dict | list):
            raise RecipeError(f"--set {given!r}: {section} is a value, not a section")
    parsed = number(yaml.safe_load(value))
    if isinstance(target, list):
        target[_place(target, last, given)] = parsed
    else:
        target[last] = parsed


def _item(streams: list[Any], name: str, given: str) -> Any:
    return streams[_place(streams, name, given)]


def _place(streams: list[Any], name: str, given: str) -> int:
    """A stream or stage by its name or number."""
    for number, stream in enumerate(streams):
        if name == str(number) or (isinstance(stream, dict) and stream.get("name") == name):
            return number
    known = [stream.get("name") for stream in streams if isinstance(stream, dict)]
    what = "stage" if given.startswith("stages.") else "stream"
    raise RecipeError(f"--set {given!r}: no {what} {name!r}; there are {known}")


def number(value: Any) -> Any:
    """YAML 1.1 reads 1e-4 as a string; people mean a number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def explain(problem: Any, whole: type[BaseModel] = Recipe) -> str:
    """What pydantic found wrong in a section file (`whole`), in a line."""
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = _known_keys(whole, problem["loc"][:-1])
        return f"{place}: unknown key{nearest(str(problem['loc'][-1]), known)}"
    message = problem["msg"].removeprefix("Value error, ")
    given = problem.get("input")
    shown = f", got {given!r}" if place and not isinstance(given, dict | list | BaseModel) else ""
    return f"{place}: {message}{shown}" if place else message


def _known_keys(whole: type[BaseModel], place: Sequence[Any]) -> list[str]:
    section: Any = whole
    for part in place:
        if isinstance(part, int):
            continue
        annotation = section.model_fields[part].annotation
        options = [annotation, *get_args(annotation)]
        section = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return list(section.model_fields)
