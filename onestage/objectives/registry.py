"""Objectives by name: the file name is the registry.

`dpo` is the one objective defined in `objectives/dpo.py`. A new file is known at once; there is no
list to keep.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

import onestage.objectives
from onestage.nearest import nearest
from onestage.objectives.contract import Objective

ALIASES = {"una": "uft"}
NOT_OBJECTIVES = {"contract", "registry", "measures"}


def names() -> list[str]:
    """Every objective that can be named in a recipe."""
    files = {module.name for module in pkgutil.iter_modules(onestage.objectives.__path__)}
    return sorted((files - NOT_OBJECTIVES) | set(ALIASES))


def find(name: str) -> type[Objective]:
    """The class behind a name; `ValueError` with the nearest known name if there is none."""
    if name not in names():
        raise ValueError(f"unknown objective {name!r}{nearest(name, names())}")
    module = importlib.import_module(f"onestage.objectives.{ALIASES.get(name, name)}")
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Objective)
        and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise TypeError(f"{module.__name__} must define exactly one objective, has {found}")
    return found[0]


def make(name: str, options: Mapping[str, Any]) -> Objective:
    """An objective with its options checked: names, types and ranges."""
    objective = find(name)
    known = [field.name for field in dataclasses.fields(objective)]  # type: ignore[arg-type]
    for key in options:
        if key not in known:
            raise ValueError(f"objective {name}: unknown option {key!r}{nearest(key, known)}")
    try:
        return TypeAdapter(objective).validate_python(dict(options))
    except ValidationError as error:
        problems = [
            f"objective {name}: {'.'.join(str(part) for part in p['loc'])}: {p['msg']}"
            for p in error.errors()
        ]
        raise ValueError("; ".join(problems)) from error
