"""YAML as plain data, bounded: what a file or `--set` may hold, however it was written.

Nine lines of aliases stand for a billion values, and a thousand brackets for a thousand levels: both are
counted before anything is made of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

LARGEST = 16 << 20
"""Bytes of a file that are read."""
DEEPEST = 64
"""Levels of tables and lists inside each other."""
MOST = 100_000
"""Values that aliases may stand for."""
OCTAL = re.compile(r"[-+]?0[0-7_]+")
"""A number with zeros in front."""


class RecipeError(ValueError):
    """A recipe that cannot be run: says what was given and what is allowed."""


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice: the second would silently replace the first."""

    level = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.level += 1
        if self.level > DEEPEST:
            raise RecipeError(f"more than {DEEPEST} levels of tables and lists inside each other")
        found = super().compose_node(parent, index)
        self.level -= 1
        return found

    def get_single_node(self) -> Any:
        found = super().get_single_node()
        if found is not None:
            _bound(found)
        return found

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        seen: list[Any] = []
        for key in keys:
            name = self.construct_object(key)
            if name in seen:
                raise RecipeError(f"line {key.start_mark.line + 1}: {name!r} stands there twice")
            seen.append(name)
        self.flatten_mapping(node)
        return super().construct_mapping(node, deep)


def _as_written(loader: Any, node: Any) -> Any:
    """A number; `RecipeError` for one that YAML reads otherwise than people do."""
    text, make = (
        node.value,
        {"int": loader.construct_yaml_int, "float": loader.construct_yaml_float},
    )
    found = make[node.tag.rpartition(":")[2]](node)
    octal = OCTAL.fullmatch(text) and int(text) != found
    base = "60" if ":" in text else "8" if octal else ""
    if base:
        raise RecipeError(
            f"line {node.start_mark.line + 1}: {text} is {found} to YAML, in base {base}; write the "
            "number plainly, or a text in quotes"
        )
    return found


for _tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _as_written)


def _bound(root: Any) -> None:
    """Raise `RecipeError` where aliases make too much of a document, or lead back to themselves."""
    sizes: dict[int, int] = {}
    levels: dict[int, int] = {}
    open_: set[int] = set()

    def size(node: Any, level: int) -> int:
        if id(node) in open_:
            raise RecipeError(f"line {node.start_mark.line + 1}: what stands there holds itself")
        if level > DEEPEST:
            raise RecipeError(f"more than {DEEPEST} levels of tables and lists inside each other")
        if id(node) in sizes and levels[id(node)] >= level:
            return sizes[id(node)]
        open_.add(id(node))
        found = 1 + sum(size(one, level + 1) for one in _inside(node))
        open_.discard(id(node))
        sizes[id(node)], levels[id(node)] = found, level
        return found

    whole = size(root, 1)
    if whole > MOST and whole > 2 * len(sizes):
        raise RecipeError(f"its aliases stand for {whole:,} values, and {MOST:,} are allowed")


def _inside(node: Any) -> Iterable[Any]:
    if isinstance(node, yaml.MappingNode):
        return (one for pair in node.value for one in pair)
    return node.value if isinstance(node, yaml.SequenceNode) else ()


def parsed(text: str, where: str, then: str = ": ") -> Any:
    """What a text says; `RecipeError`, in one line that begins with `where`, for what is no YAML."""
    try:
        return yaml.load(text, _Loader)
    except RecipeError as error:
        raise RecipeError(f"{where}{then}{error}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        said = f"{place}{error.problem or error.context}"
        raise RecipeError(f"{where} is not YAML: {said}") from error
    # Dates that no calendar has, numbers without digits, characters that YAML forbids.
    except (yaml.YAMLError, ValueError, OverflowError, AttributeError, TypeError) as error:
        raise RecipeError(f"{where} is not YAML: {' '.join(str(error).split())}") from error


def read_yaml(file: Path, what: str, keys: Iterable[str]) -> dict[str, Any]:
    """A YAML file (a `what`) that holds one table of `keys`; `RecipeError` where it is none."""
    try:
        with file.open("rb") as opened:
            raw = opened.read(LARGEST + 1)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise RecipeError(f"no {what} at {file}") from error
    if len(raw) > LARGEST:
        raise RecipeError(f"{file}: no {what} is larger than {LARGEST >> 20} MB")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{file} is not YAML: {error}") from error
    content = parsed(text, str(file), ", ")
    if not isinstance(content, dict):
        raise RecipeError(f"{file}: a {what.split()[0]} is a mapping with the keys {list(keys)}")
    return content
