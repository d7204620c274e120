"""Schedules by name: the file name is the registry, as with objectives."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

import onestage.schedules
from onestage.nearest import nearest
from onestage.schedules.contract import Schedule

NOT_SCHEDULES = {"contract", "registry", "clipping", "suboptimality"}
GIVEN = {"weight", "steps", "seed", "raised", "optimum", "values", "known_at", "best"}
"""Fields that are not a recipe's options."""


def names() -> list[str]:
    """Every schedule that can be named in a recipe."""
    files = {module.name for module in pkgutil.iter_modules(onestage.schedules.__path__)}
    return sorted(files - NOT_SCHEDULES)


def find(name: str) -> type[Schedule]:
    """The class behind a name; `ValueError` with the nearest known name if there is none."""
    if name not in names():
        raise ValueError(f"unknown schedule {name!r}{nearest(name, names())}")
    module = importlib.import_module(f"onestage.schedules.{name}")
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Schedule)
        and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise TypeError(f"{module.__name__} must define exactly one schedule, has {found}")
    return found[0]


def make(
    name: str,
    weight: Mapping[str, float],
    steps: int,
    seed: int,
    options: Mapping[str, Any],
    optimum: Mapping[str, float] | None = None,
) -> Schedule:
    """A schedule with its options checked: names, types and ranges.

    `optimum`: f* of the terms, for the schedules that look at them.
    """
    schedule = find(name)
    known = [field.name for field in dataclasses.fields(schedule) if field.name not in GIVEN]
    for key in options:
        if key not in known:
            raise ValueError(f"schedule {name}: unknown option {key!r}{nearest(key, known)}")
    try:
        given = {**options, "weight": dict(weight), "steps": steps, "seed": seed}
        if any(field.name == "optimum" for field in dataclasses.fields(schedule)):
            given["optimum"] = dict(optimum or {})
        return TypeAdapter(schedule).validate_python(given)
    except ValidationError as error:
        problems = [
            f"schedule {name}: {'.'.join(str(part) for part in p['loc'])}: "
            f"{p['msg'].removeprefix('Value error, ')}".replace(": :", ":")
            for p in error.errors()
        ]
        raise ValueError("; ".join(problems)) from error
