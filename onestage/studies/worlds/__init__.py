"""Where a study takes place: a base model, data, and what counts as good there. One file a world.

Whatever a study does, it does on `lab` and on a folder with a real model and real data alike. A study
file names a world of ours (`{name: folder, ...}`), one of an installed package (entry points
`onestage.worlds`), or one by its path (`{name: "./mine.py:Mine", ...}`), which must be found from the
working folder in every process of the study.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from onestage.config import Plugins
from onestage.runfolder import Say

Split = Literal["validation", "test"]
"""Tuning is judged on validation, results on test."""


@dataclass(frozen=True)
class Metric:
    """What a number says."""

    says: str
    better: Literal["higher", "lower"] | None = "higher"
    """None: neither is."""
    group: str = ""
    """Shown together; each group has one mean."""


@dataclass(frozen=True)
class Ground:
    """What the runs of one seed share."""

    base: Path
    """Folder of the model that all start from."""
    data: Path
    """Folder of `KIND.SPLIT.jsonl` files."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Whatever the world itself needs again."""
    notes: Sequence[str] = ()
    """What whoever runs a study should know of it, in sentences that are told once."""


@dataclass(frozen=True)
class Evaluated:
    """How good a model was found to be."""

    metrics: Mapping[str, float]
    answers: Sequence[Mapping[str, Any]] = ()
    """`prompt`, `response`, `metric` and `right`, in an order that is the same for all models."""
    notes: Sequence[str] = ()
    """What was left out, cut or could not be judged, in sentences that a study tells once."""


class World(ABC):
    """A frozen dataclass of its options. Made anew in every process, so that it holds nothing else."""

    headline: Sequence[str]
    """The metrics of the main table, the one to tune by first."""
    exam: ClassVar[int] = 1
    """Which exam `evaluate` holds: one more wherever what it asks, or how it judges, becomes another, so
    that a study mixes no results of two."""

    @property
    @abstractmethod
    def metrics(self) -> Mapping[str, Metric]:
        """Everything that `evaluate` finds, in the order to show it."""

    def check(self) -> None:
        """Raise `ValueError` where the world cannot be: a missing model or file."""
        return

    def examined(self, found: Mapping[str, float]) -> int:
        """By which exam a cell found this, at most, that does not say so (of versions before it was
        told)."""
        return 1

    @abstractmethod
    def prepare(self, seed: int, cache: Path, say: Say) -> Ground:
        """Make or find the ground of a seed. Several processes may ask at once."""

    @abstractmethod
    def evaluate(self, ground: Ground, model: Path, seed: int, split: Split) -> Evaluated:
        """Judge the model in a folder (an adapter folder, too): numbers of some or all of `metrics`."""


PLUGINS = Plugins("world", __name__, World)  # type: ignore[type-abstract]
names, find, make = PLUGINS.names, PLUGINS.find, PLUGINS.make
