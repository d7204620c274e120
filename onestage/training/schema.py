"""What editors are told of recipes: their JSON schema."""

from __future__ import annotations

from typing import Any

from onestage.training.recipe import Recipe


def schema_of_recipes() -> dict[str, Any]:
    """The JSON schema of recipes, with the short forms that they may have and our own names as
    examples."""
    from onestage import objectives, schedules

    found = Recipe.model_json_schema()
    sections = found["properties"]
    sections["model"] = {"anyOf": [{"type": "string"}, sections["model"]]}
    table = {
        "type": "object",
        "additionalProperties": {"anyOf": [{"type": "string"}, {"type": "object"}]},
    }
    sections["data"] = {"anyOf": [sections["data"], table]}
    for name, ours in (("objective", objectives.PLUGINS), ("schedule", schedules.PLUGINS)):
        sections[name] |= {
            "anyOf": [{"type": "string"}, {"type": "object"}],
            "examples": ours.built_in(),
        }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **found,
        "title": "onestage recipe",
    }
