"""What lies in the files that a cell names: their names are in its digest, and files are mended.

A cell tells what it was done on. One that does not, of an earlier version, is taken as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from onestage.data.files import SUFFIXES
from onestage.models.fingerprint import digest_files
from onestage.runfolder import digest_of
from onestage.studies.cells import Cell
from onestage.training.optimum import digest_of_model

CONFIGS = ("config.json", "adapter_config.json")


def with_contents(cells: Sequence[Cell]) -> list[Cell]:
    """The cells, each with a digest of all that lies where its world and its recipe point to."""
    once = cache(digest_at)  # cells point to the same places
    return [replace(cell, contents=_contents(cell.world, cell.recipe, once)) for cell in cells]


def _contents(
    world: Mapping[str, Any], recipe: Mapping[str, Any] | None, digest: Callable[[str], str]
) -> str:
    """A digest of all files, data folders and model folders that a world and a recipe name, a plug-in's
    too; nothing where there are none. In a recipe, words may be called as a folder is by chance."""
    named = {text for text in _texts(recipe) if "/" in text or "." in text}
    named |= {text for key, value in world.items() if key != "name" for text in _texts(value)}
    found = {text: told for text in sorted(named) if (told := digest(text))}
    return digest_of(found) if found else ""


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(one)


def digest_at(text: str) -> str:
    """Of what lies at a path, or at that of a plug-in (`FILE.py:NAME`); nothing where nothing does."""
    try:
        file = Path(text.partition(".py:")[0] + ".py" if ".py:" in text else text).expanduser()
        if file.is_file():
            return digest_files([file])
        if not file.is_dir():
            return ""
    except (OSError, ValueError, RuntimeError):  # a text that is no path
        return ""
    if any((file / config).is_file() for config in CONFIGS):
        return digest_of_model(str(file))
    # Not all that lies there: a study may be at work in the folder.
    rows = (one for one in file.iterdir() if one.name.lower().endswith((*SUFFIXES, ".arrow")))
    return digest_files(rows)
