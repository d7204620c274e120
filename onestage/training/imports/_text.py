"""The recipe that a configuration became, as the text of a file."""

from __future__ import annotations

import textwrap
from typing import Any

import yaml

from onestage.training.imports import Carried

WIDTH = 96


def written(carried: Carried, tool: str, file: str) -> str:
    """YAML, opened by what a reader should know: what was left, and what was read otherwise."""
    lines = [f"From {file}, of {tool}, by onestage import. Keys: docs/recipe.md."]
    lines += [f"NOT CARRIED: {key}: {_short(value)}" for key, value in carried.left.items()]
    lines += [f"Note: {note}" for note in carried.told]
    head = [
        f"# {line}"
        for one in lines
        for line in textwrap.wrap(one, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    ]
    body = yaml.safe_dump(carried.recipe, sort_keys=False, allow_unicode=True, width=WIDTH)
    return "\n".join(head) + "\n" + body


def _short(value: Any) -> str:
    return textwrap.shorten(str(value), 60, placeholder=" ...")
