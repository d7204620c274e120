"""docs/recipe.md names every key of every section, and the published schema is the recipe's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import get_args

import pytest
import yaml
from pydantic import BaseModel
from support.markdown import blocks, without_code
from support.tiny import ROOT

from onestage.training.recipe import Recipe, load_recipe
from onestage.training.schema import schema_of_recipes

PAGE = ROOT / "docs" / "recipe.md"


def sections() -> dict[str, type[BaseModel]]:
    """The recipe and every section in it, by class name."""
    found: dict[str, type[BaseModel]] = {}

    def walk(section: type[BaseModel]) -> None:
        if section.__name__ not in found:
            found[section.__name__] = section
            for field in section.model_fields.values():
                for inner in _models(field.annotation):
                    walk(inner)

    walk(Recipe)
    return found


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


@pytest.mark.parametrize("name", sorted(sections()))
def test_every_key_is_named(name: str) -> None:
    """In code, alone or in a table of keys: `name`, `{r, alpha}`."""
    coded = " ".join(re.findall(r"`([^`]+)`", without_code(PAGE)))
    words = set(re.findall(r"\w+", coded))
    missing = sorted(set(sections()[name].model_fields) - words)
    assert not missing


def test_all_sections_are_walked() -> None:
    assert {"Model", "Lora", "Stream", "Rollout", "Train", "Probe", "Stage"} <= set(sections())


def test_the_published_schema_is_up_to_date() -> None:
    """But for the names of plug-ins: a new one is one file and its test."""
    published = json.loads((ROOT / "docs" / "recipe.schema.json").read_text())
    now = schema_of_recipes()
    for schema in (published, now):
        for section in ("objective", "schedule"):
            del schema["properties"][section]["examples"]
    assert published == now, "make it anew: onestage schema --out docs/recipe.schema.json"


def test_the_first_example_is_a_recipe() -> None:
    """The short forms: a model by its name, data as a table."""
    _, block = blocks(PAGE, "yaml")[0]
    recipe = load_recipe(yaml.safe_load(block))
    assert recipe.model.name
    assert [stream.name for stream in recipe.data] == ["chat", "pairs"]
