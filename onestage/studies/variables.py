"""Variables in plain data: `{rate}` stands for a value, `{1 - part}` for the rest of one.

A text that is nothing but a variable becomes the value itself, a number a number; inside a longer text
its written form is put in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

NAME = r"[A-Za-z_]\w*"
PLACE = re.compile(r"\{\s*(1\s*-\s*)?(" + NAME + r")\s*\}")


def used(content: Any) -> set[str]:
    """Names of the variables that stand anywhere in plain data."""
    if isinstance(content, dict):
        return set().union(*(used(part) for pair in content.items() for part in pair))
    if isinstance(content, list | tuple):
        return set().union(*(used(part) for part in content))
    if isinstance(content, str):
        return {found[2] for found in PLACE.finditer(content)}
    return set()


def filled(content: Any, values: Mapping[str, Any]) -> Any:
    """A copy with every variable that has a value replaced; others stay as they are."""
    if isinstance(content, dict):
        return {filled(k, values): filled(v, values) for k, v in content.items()}
    if isinstance(content, list | tuple):
        return [filled(part, values) for part in content]
    if not isinstance(content, str):
        return content
    whole = PLACE.fullmatch(content)
    if whole:
        return _value(whole, values)
    return PLACE.sub(lambda found: str(_value(found, values)), content)


def _value(found: re.Match[str], values: Mapping[str, Any]) -> Any:
    rest, name = found[1], found[2]
    if name not in values:
        return found[0]
    if not rest:
        return values[name]
    value = values[name]
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{found[0]}: {name} is {value!r}, no number")
    return round(1 - value, 12)
