"""What lies in the files that a cell names: their names are in its digest, and files are mended.

A cell tells what it was done on. One that does not, of an earlier version, is taken as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from onestage.data.files import SUFFIXES
from onestage.models.fingerprint import digest_files
from onestage.runfolder import digest_of
from onestage.studies.cells import Cell
from onestage.training.optimum import KINDS

CONFIGS = ("config.json", "adapter_config.json")


def with_contents(cells: Sequence[Cell]) -> list[Cell]:
    """The cells, each with a digest of all that lies where its world and its recipe point to."""
    return [replace(cell, contents=contents_of(cell.world, cell.recipe)) for cell in cells]


def contents_of(world: Mapping[str, Any], recipe: Mapping[str, Any] | None) -> str:
    """A digest of all files, data folders and model folders that a world and a recipe name, a plug-in's
    too; nothing where there are none. In a recipe, words may be called as a folder is by chance."""
    named = {text for text in _texts(recipe) if "/" in text or "." in text}
    named |= {text for key, value in world.items() if key != "name" for text in _texts(value)}
    found = {text: told for text in sorted(named) if (told := _digest_at(text))}
    return digest_of(found) if found else ""


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(one)


def _digest_at(text: str) -> str:
    """Of what lies at a path, or at that of a plug-in (`FILE.py:NAME`); nothing where nothing does."""
    try:
        place = Path(text.partition(".py:")[0] + ".py" if ".py:" in text else text).expanduser()
        files = _files_at(place)
    except (OSError, ValueError, RuntimeError):  # a text that is no path
        return ""
    told = ((file, file.stat()) for file in sorted(files))
    found = [_digest_of(file, stat.st_size, stat.st_mtime_ns) for file, stat in told]
    return digest_of(found) if found else ""


def _files_at(place: Path) -> list[Path]:
    """A file, or those of a folder that decide what a model or a data set is."""
    if not place.is_dir():
        return [place] if place.is_file() else []
    if any((place / config).is_file() for config in CONFIGS):
        return [file for kind in KINDS for file in place.glob(kind)]
    # Not all that lies there: a study may be at work in the folder.
    return [one for one in place.iterdir() if one.name.lower().endswith((*SUFFIXES, ".arrow"))]


@cache
def _digest_of(file: Path, size: int, changed: int) -> str:
    """Read once, until it is another: cells, and phases of a study, point to the same files."""
    return digest_files([file])
