"""Where the cells of a study are done: in processes of this machine, on a cluster. One file each.

    onestage study FILE                                            # local
    onestage study FILE --on ray:10.0.0.7:6379
    onestage study FILE --on '{name: ray, shared: /mnt/all}'

Resuming, retries and tables are the study's own, and the same wherever its cells are done.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onestage.config import Plugins
from onestage.config.plain_yaml import parsed
from onestage.runfolder import Say
from onestage.studies.file import Resources
from onestage.studies.worlds import Ground

if TYPE_CHECKING:
    from onestage.studies.cells import Cell

Ended = tuple[int, Any, str]
"""The number of what ended, what came of it, and why it failed (`""`: it did not)."""


@dataclass(frozen=True)
class Place:
    """What an executor is told of a study."""

    out: Path
    """The study's folder; a cell's is `cells/NAME` in it."""
    cache: Path
    """Bases, encoded data, references."""
    jobs: int | None
    """Cells at once; None: as many as fit."""
    resources: Resources
    """What a cell takes."""
    keep_models: bool
    """Whether cells may have to keep their weights."""
    say: Say


class Crew(ABC):
    """Who does cells, for as long as a study takes."""

    @abstractmethod
    def prepare(self, cells: Sequence[Cell]) -> Iterator[Ended]:
        """Make the ground of each cell, which no two share; what comes of it is a `Ground`."""

    @abstractmethod
    def do(self, work: Sequence[tuple[Cell, Ground]], keep_models: bool) -> Iterator[Ended]:
        """Do cells on their grounds, each in its folder; what comes of it is the state that it ends in
        (`done` or `failed`), as its `status.json` has it."""


class Executor(ABC):
    """A frozen dataclass of its options."""

    @abstractmethod
    def opened(self, place: Place) -> AbstractContextManager[Crew]:
        """A crew for a study. What it does is stopped when the block is left by an exception.

        Raises `ValueError`, before anything is done, where there can be none.
        """


PLUGINS = Plugins("executor", __name__, Executor)  # type: ignore[type-abstract]
names, find = PLUGINS.names, PLUGINS.find


def make(given: str | Mapping[str, Any] | Executor) -> Executor:
    """One by its name, as `NAME:ADDRESS`, as a table of options (or its YAML), or as it is."""
    if isinstance(given, str) and given.lstrip().startswith("{"):
        return PLUGINS.make(parsed(given, "--on"))
    name, colon, address = given.partition(":") if isinstance(given, str) else ("", "", "")
    if colon and name in names():
        return PLUGINS.make({"name": name, "address": address})
    return PLUGINS.make(given)
