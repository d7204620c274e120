"""What is compared: methods in settings, seeds, and the numbers each reached.

A study's cells and a handful of plain runs come to the same form, so that the page is made once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from onestage.report.numbers import mean_of, setting
from onestage.report.reading import Trouble
from onestage.report.trained import Trained
from onestage.report.verdict import FEW
from onestage.stats import Interval

SMALL = 0.02
"""A fall of a single seed below this (of 1, or of the base's size where that is larger) is not told."""
ROUNDING = 1e-9
"""Changes below this are none."""


@dataclass(frozen=True)
class Metric:
    """What a number says, as read from `study.json`: the report knows no world that could be asked."""

    name: str
    says: str = ""
    better: str | None = "higher"
    """"higher", "lower", or None where neither is."""
    group: str = ""

    @property
    def sign(self) -> int:
        return {"higher": 1, "lower": -1}.get(self.better or "", 0)

    @property
    def own(self) -> bool:
        """Whether the runs measured it themselves, while they trained."""
        return self.name.startswith(("eval/", "start/", "retention/", "after/", "left/"))

    @property
    def label(self) -> str:
        """Its name in words, where it is one of a run's own measurements."""
        place, _, what = self.name.removeprefix("start/").rpartition("/")
        first, _, rest = place.partition("/")
        if not self.own or not rest:
            return self.name
        if first in ("after", "left"):
            return (
                f"{what} after {rest}" if first == "after" else f"{what}, left of that after {rest}"
            )
        told = {"loss": "loss", "kl": "KL to the start"}.get(what, what.replace("_", " "))
        told = f"loss of the term {what}" if rest == "terms" else f"{told} of {rest}"
        told = f"held-out {told}" if first == "eval" else told
        return told + (", before training" if self.name.startswith("start/") else "")

    @property
    def title(self) -> str:
        """Of an axis."""
        return f"{self.label} ({self.better} is better)" if self.sign else self.label

    @property
    def arrow(self) -> str:
        return {1: " ↑", -1: " ↓", 0: ""}[self.sign]


@dataclass(frozen=True, order=True)
class Setting:
    """A method with its place on the axes: a row of the tables, a point of the front."""

    method: str
    axes: tuple[tuple[str, Any], ...] = ()

    def at(self, axis: str) -> Any:
        """Its value on an axis; None where it does not depend on it."""
        return dict(self.axes).get(axis)

    @property
    def place(self) -> str:
        return ", ".join(f"{_last(key)} {setting(value)}" for key, value in self.axes)

    @property
    def label(self) -> str:
        return f"{self.method}, {self.place}" if self.axes else self.method


@dataclass(frozen=True)
class Steps:
    """What a metric of a method was, at one place of the axes, by step of training."""

    of: Setting
    metric: str
    means: dict[int, Interval] = field(default_factory=dict)

    def by(self, step: int) -> Interval | None:
        """As it was last asked by that step."""
        known = [one for one in self.means if one <= step]
        return self.means[max(known)] if known else None


@dataclass(frozen=True)
class Cell:
    name: str
    method: str
    seed: int = 0
    purpose: str = "test"
    axes: Mapping[str, Any] = field(default_factory=dict)
    choice: Mapping[str, Any] = field(default_factory=dict)
    state: str = "done"
    error: str = ""
    seconds: float | None = None
    results: Mapping[str, float] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)
    trained: Trained | None = None

    @cached_property
    def setting(self) -> Setting:
        return Setting(self.method, tuple((k, hashable(v)) for k, v in self.axes.items()))


@dataclass(frozen=True)
class Compared:
    """Everything one chapter of the page shows."""

    name: str
    folder: Path
    methods: list[str]
    cells: list[Cell]
    metrics: dict[str, Metric]
    headline: list[str]
    base: str | None = None
    axes: Mapping[str, list[Any]] = field(default_factory=dict)
    front: tuple[str, str] | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    """The rest of study.json: description, budget, tune, command, versions, ..."""
    text: str = ""
    """The study file as it was given."""
    claims: list[dict[str, Any]] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    tuning: Mapping[str, Any] = field(default_factory=dict)
    """`tuning.json`: by method, what was tried on validation and what was chosen."""
    whole: list[Cell] = field(default_factory=list)
    """Numbers of several cells together, each as a cell of its own."""
    is_study: bool = True
    curves: list[Steps] = field(default_factory=list)
    """What suites found on the way, over all seeds."""
    certain: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Of methods, by metric: half the width of the interval of the change against the base, where it is
    known otherwise than from seeds (paired by item)."""
    paired: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """That change itself: the base may have been asked more items than the model."""
    judges: Sequence[str] = ()
    """What the verdict goes by; empty: the headline."""
    lost: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Of methods, what was measured once and is no number any more."""

    @property
    def tested(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.purpose == "test"]

    @property
    def grounds(self) -> set[Setting]:
        """Where the base was judged: at several places, there is no one gain to be equal in."""
        return {cell.setting for cell in self.tested if cell.method == self.base}

    def settings(self) -> list[Setting]:
        """Rows of the tables: methods in their order, settings in the order of the axes' values."""
        return [*self._rows]

    @cached_property
    def _rows(self) -> dict[Setting, list[Cell]]:
        """With their cells: a page asks for them tens of thousands of times."""
        found: dict[Setting, list[Cell]] = {}
        for cell in self.tested:
            found.setdefault(cell.setting, []).append(cell)
        order = sorted(found, key=lambda one: (self._number(one.method), self._place(one)))
        return {one: found[one] for one in order}

    def of(self, one: Setting) -> list[Cell]:
        """Its cells that are reported."""
        return self._rows.get(one, [])

    def trained(self) -> list[Cell]:
        """Cells with a run, as the rows of the tables, finished ones and low seeds first."""
        order = {one: n for n, one in enumerate(self.settings())}
        cells = [cell for cell in self.tested if cell.trained is not None]
        return sorted(cells, key=lambda c: (order[c.setting], c.state != "done", c.seed))

    def _number(self, method: str) -> int:
        return self.methods.index(method) if method in self.methods else len(self.methods)

    def _place(self, one: Setting) -> tuple[int, ...]:
        places = []
        for axis, value in one.axes:
            values = [hashable(item) for item in self.axes.get(axis, [])]
            places.append(values.index(value) if value in values else len(values))
        return tuple(places)

    def values(self, one: Setting, metric: str) -> dict[int, float]:
        """Value of a metric by seed."""
        return {cell.seed: cell.results[metric] for cell in self.of(one) if metric in cell.results}

    def mean(self, one: Setting, metric: str) -> Interval | None:
        return mean_of(list(self.values(one, metric).values()))

    def change(self, one: Setting, metric: str) -> Interval | None:
        """Mean change against the base, seed by seed; None where they share no seed."""
        return mean_of(list(self.changes(one, metric).values()))

    def changes(self, one: Setting, metric: str) -> dict[int, float]:
        base = self.base_of(one)
        if base is None or base == one:
            return {}
        # Seed by seed: in a generated world each seed has facts, and so a base, of its own.
        before, after = self.values(base, metric), self.values(one, metric)
        if not self.is_study:  # runs have one start, whatever their seeds
            known = self.paired.get(one.method, {}).get(metric)
            if known is not None and before:
                return dict.fromkeys(after, known)
            return {
                seed: value - start for start in before.values() for seed, value in after.items()
            }
        return {seed: value - before[seed] for seed, value in after.items() if seed in before}

    def base_of(self, one: Setting) -> Setting | None:
        """The base's setting that agrees with this one on the axes that the base has."""
        for other in self.settings():
            if other.method == self.base and set(other.axes) <= set(one.axes):
                return other
        return None

    def forgotten(self, one: Setting, metric: str) -> bool:
        """Whether it is surely worse than the base: the interval of the change lies on the wrong side of
        zero; for a single seed, whether it fell by more than `SMALL`."""
        sign, change = self.metrics[metric].sign, self.change(one, metric)
        if not sign or change is None:
            return False
        half = self.certain.get(one.method, {}).get(metric)
        if half is not None:
            return sign * change.mean + half < -ROUNDING
        if change.half is None:
            base = self.base_of(one)
            size = max((abs(v) for v in self.values(base, metric).values()), default=0.0)  # type: ignore[arg-type]
            return sign * change.mean < -SMALL * max(1.0, size)
        return max(sign * change.low, sign * change.high) < -ROUNDING

    def settled(self, one: Setting, metric: str) -> bool:
        """Whether there is enough to say so in colour: four seeds, or an interval over items."""
        known = metric in self.certain.get(one.method, {})
        return known or len(self.values(one, metric)) >= FEW

    def best(self, metric: str) -> set[Setting]:
        """The settings with the best mean; empty where there is nothing to compare."""
        sign = self.metrics[metric].sign
        means = {one: found for one in self.settings() if (found := self.mean(one, metric))}
        if not sign or len(means) < 2:
            return set()
        values = [sign * mean.mean for mean in means.values()]
        top = max(values)
        if top == min(values):
            return set()
        return {one for one, mean in means.items() if sign * mean.mean == top}

    def share(self, metric: str) -> bool:
        """Whether it is a share to be raised, between 0 and 1, so that it can stand beside others."""
        values = [cell.results[metric] for cell in self.tested if metric in cell.results]
        return self.metrics[metric].sign > 0 and all(0 <= value <= 1 for value in values)


def first_of_each(cells: Sequence[Cell]) -> list[Cell]:
    """The first cell of each method."""
    chosen: dict[str, Cell] = {}
    for cell in cells:
        chosen.setdefault(cell.method, cell)
    return list(chosen.values())


def hashable(value: Any) -> Any:
    """A value of an axis as part of a setting: lists and tables as text."""
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _last(key: str) -> str:
    return key.rsplit(".", 1)[-1]
