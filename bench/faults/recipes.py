"""Recipes that are no recipes: each key is given values that it does not allow.

`onestage check` must answer in `error:` lines, without a traceback.
"""

from __future__ import annotations

import copy
import typing
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from bench.faults.runs import Said, chances, sorts
from onestage.training.recipe import Recipe

NO_VALUES: list[Any] = [
    *(None, "", [], {}, -1, 0, "x" * 300, [1], {"a": 1}, "\0", 1e400, True, {"name": None}),
    *({"name": "x"}, 10**30, 10**12, "{", ["a"], [[]], [{}], "/dev/null", "a/b", "\ud800"),
]


def keys(section: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key of a recipe, its sections' included."""
    for name, field in section.model_fields.items():
        yield (*above, name)
        held = [field.annotation, *typing.get_args(field.annotation)]
        for kind in [*held, *(inner for one in held for inner in typing.get_args(one))]:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from keys(kind, (*above, name))


def put(recipe: dict[str, Any], place: tuple[str, ...], value: Any) -> None:
    at: Any = recipe
    for name in place[:-1]:
        below = at.get(name)
        below = below[0] if isinstance(below, list) and below else below
        if not isinstance(below, dict):
            below = at[name] = {}
        at = below
    at[place[-1]] = value


def faults(most: int, seed: int, root: Path) -> tuple[str, list[str]]:
    """Recipes with a value that does not belong there: what `check` said, and what it should not."""
    recipe = sorts(root)["lora"]
    cases = [(place, value) for place in sorted(set(keys(Recipe))) for value in NO_VALUES]
    chances(seed, "recipes").shuffle(cases)
    found: Counter[str] = Counter()
    wrong = []
    for place, value in cases[:most]:
        bad = copy.deepcopy(recipe)
        put(bad, place, value)
        (root / "bad.yaml").write_text(yaml.safe_dump(bad))
        said = Said(["check", str(root / "bad.yaml")])
        found["allowed" if said.code == 0 else "refused in a line"] += 1
        if not said.plain:
            wrong.append(f"{'.'.join(place)}: {str(value)[:40]!r}: {said.text[-200:]}")
    return f"{sum(found.values())} recipes: {dict(found)}", wrong
