"""A switch where a number is wanted: YAML's `no` would be a seed of 0, and its `yes` a beta of 1.

Python counts True and False as whole numbers, and so does pydantic. Which places want a number is read
off the types, however deep in lists and tables these stand.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

PLAIN = {"int": int, "float": float}
SWITCHES = ("bool", "bool_")
"""Python's and numpy's, which is no bool of Python's and is read as a number all the same."""


def switches(value: Any, kind: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Where in a value for a field of a type a switch stands that can only be taken for a number, and
    what is wrong with it."""
    yield from _look(value, list(_kinds(kind)), place)


def in_fields(found: type, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The same of what is given for the fields of a dataclass."""
    types = {item.name: item.type for item in dataclasses.fields(found)}
    try:
        hints = get_type_hints(found, include_extras=True)
    except Exception:  # whatever the names in a stranger's annotations stand for
        hints = {name: PLAIN.get(str(kind), kind) for name, kind in types.items()}
    for name in types:
        if name in given:
            yield from switches(given[name], hints[name], name)


def _look(value: Any, kinds: Sequence[Any], place: str) -> Iterator[tuple[str, str]]:
    if Any in kinds:
        return
    if type(value).__name__ in SWITCHES:
        if bool not in kinds and (int in kinds or float in kinds):
            yield place, f"must be a number, found {str(value).lower()}"
    elif isinstance(value, Mapping):
        for key, one in value.items():
            inside = [get_args(kind)[1] for kind in kinds if _holds(kind, Mapping)]
            yield from _look(one, _flat(inside), f"{place}.{key}".lstrip("."))
    elif isinstance(value, list | tuple):
        for number, one in enumerate(value):
            inside = [_member(kind, number) for kind in kinds if _holds(kind, Sequence)]
            yield from _look(one, _flat(inside), f"{place}.{number}".lstrip("."))


def _kinds(kind: Any) -> Iterator[Any]:
    """The types of which any will do."""
    origin = get_origin(kind)
    if origin is Annotated:
        yield from _kinds(get_args(kind)[0])
    elif origin in (Union, UnionType):
        yield from _flat(get_args(kind))
    elif origin is Literal:
        yield from {type(one) for one in get_args(kind)}
    else:
        yield kind


def _flat(kinds: Sequence[Any]) -> list[Any]:
    return [one for kind in kinds for one in _kinds(kind)]


def _holds(kind: Any, sort: type) -> bool:
    """Whether it is a table, or a list, that says what is in it."""
    origin = get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, sort) and bool(get_args(kind))


def _member(kind: Any, number: int) -> Any:
    """The type of what stands at a place of a list, or of a tuple."""
    inside = get_args(kind)
    if get_origin(kind) is not tuple or inside[-1] is Ellipsis:
        return inside[0]
    return inside[number] if number < len(inside) else Any
