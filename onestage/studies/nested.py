"""How certain a difference is when the settings were chosen, too (a nested bootstrap).

The interval over seeds takes the chosen settings as given. Had other tuning seeds been drawn, other
settings might have been chosen. Where a study runs on its reported seeds every setting that a draw would
choose (`tune: {report: likely}`, or `all`) both are drawn again: tuning seeds, the best setting of each
method by them, then reported seeds; the spread of the difference over such draws replaces its standard
error where it is the larger.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from onestage.stats import Interval, critical
from onestage.studies.file import Tune
from onestage.studies.results import TidyRow

DRAWS = 2000
Place = tuple[str, Mapping[str, Any]]
"""A method, and values of axes."""


@dataclass
class Side:
    """One method's settings: the metric that chose, and the metric that is claimed of, by seed."""

    tuning: dict[str, dict[int, float]] = field(default_factory=dict)
    tests: dict[str, dict[int, list[float]]] = field(default_factory=dict)
    """A list, for a place whose axes are left open is a mean over several."""

    @property
    def chosen(self) -> bool:
        return len(self.tuning) > 1

    @property
    def names(self) -> list[str]:
        return list(self.tuning) if self.chosen else list(self.tests)

    def seeds(self) -> set[int]:
        return set.intersection(*(set(one) for one in self.tests.values())) if self.tests else set()

    def table(self, seeds: Sequence[int]) -> NDArray[np.float64]:
        """Settings by reported seeds (as many rows as there are settings); no number where one was not
        run on them."""
        empty = [math.nan] * len(seeds)
        tests = {name: [np.mean(one[seed]) for seed in seeds] for name, one in self.tests.items()}
        return np.array([tests.get(name, empty) for name in self.names])


@dataclass
class Draws:
    """Tuning seeds drawn again, and what is chosen by each draw, as `tuning.choose` chooses."""

    rows: Sequence[TidyRow]
    tune: Tune
    sign: int
    """-1 where less of the metric is better."""
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    numbers: NDArray[np.int64] = field(init=False)
    """Places of tuning seeds, a line a draw."""

    def __post_init__(self) -> None:
        size = len(self.tune.seeds)
        self.numbers = self.random.integers(size, size=(DRAWS, size))

    def best(self, method: str, side: Side) -> NDArray[np.int64]:
        """For each draw the number of the method's best setting among those that reach and keep what is
        asked of a choice; -1 where none does."""
        if not side.chosen:
            return np.zeros(len(self.numbers), np.int64)
        means = self.sign * self._means(list(side.tuning.values()))
        good = np.isfinite(means) & self._asked(method, side)
        best = np.argmax(np.where(good, means, -math.inf), axis=0)
        return np.where(good.any(axis=0), best, -1)

    def _asked(self, method: str, side: Side) -> NDArray[np.bool_]:
        """Settings by draws: whether one reaches `tune.at_least` and keeps `tune.at_most`."""
        good = np.ones((len(side.names), len(self.numbers)), np.bool_)
        for metric in (*self.tune.at_least, *self.tune.at_most):
            tried: dict[tuple[str, str], dict[int, float]] = {}
            for row in self.rows:
                if row.purpose == "tune" and row.metric == metric:
                    tried.setdefault((row.method, _setting(row)), {})[row.seed] = row.value
            mine = self._means([tried.get((method, name), {}) for name in side.names])
            if metric in self.tune.at_least:
                top = np.fmax.reduce(self._means(list(tried.values())), initial=math.nan)
                good &= mine >= self.tune.at_least[metric] * top
            if metric in self.tune.at_most:
                good &= mine <= self.tune.at_most[metric]
        return good

    def _means(self, values: Sequence[Mapping[int, float]]) -> NDArray[np.float64]:
        """Means of some settings by draw, of values by tuning seed; no number where one is none."""
        by_seed = [[one.get(seed, math.nan) for seed in self.tune.seeds] for one in values]
        means = np.array(by_seed).reshape(-1, len(self.tune.seeds))[:, self.numbers].mean(-1)
        return np.where(np.isfinite(means), means, math.nan)


def widened(
    found: Interval,
    rows: Sequence[TidyRow],
    tune: Tune,
    metrics: tuple[str, str],
    places: tuple[Place, Place],
    better: Literal["higher", "lower"],
) -> tuple[Interval, bool]:
    """The interval of a difference of two places with the choice of settings in it, and whether it is in
    it: where fewer than two tuning or reported seeds have every setting that a draw chooses, it stays as
    it is, and narrow. Draws by which one of them would not be reported (`tune.at_least`, `tune.at_most`)
    are left out."""
    both = zip(metrics, places, strict=True)
    sides = [_side(rows, tune.metric, metric, *place) for metric, place in both]
    seeds = sorted(sides[0].seeds() & sides[1].seeds())
    tried = any(side.chosen for side in sides)
    if not tried or found.n < 2:
        return found, True
    if len(seeds) < 2 or len(tune.seeds) < 2:
        return found, False
    draws = Draws(rows, tune, 1 if better == "higher" else -1)
    reported = draws.random.integers(len(seeds), size=(DRAWS, len(seeds)))
    best = [draws.best(method, side) for (method, _), side in zip(places, sides, strict=True)]
    some = np.minimum(*best) >= 0
    means = [
        side.table(seeds)[one[some, None], reported[some]].mean(-1)
        for side, one in zip(sides, best, strict=True)
    ]
    if not some.any() or not np.isfinite(means).all():
        return found, False
    # The bootstrap's variance of a mean of n is (n - 1) / n of the unbiased one.
    spread = float(np.std(means[0] - means[1])) * math.sqrt(len(seeds) / (len(seeds) - 1))
    sd = max(found.sd, spread * math.sqrt(found.n))
    half = critical(found.n - 1) * sd / math.sqrt(found.n)
    of_choice = math.sqrt((sd**2 - found.sd**2) / found.n)
    low, high = found.mean - half, found.mean + half
    return replace(found, low=low, high=high, sd=sd, choice=of_choice), True


def likely(
    rows: Sequence[TidyRow], tune: Tune, better: Literal["higher", "lower"]
) -> dict[str, list[Mapping[str, Any]]]:
    """For each method the settings that the draws of an interval choose, where those are reported."""
    if tune.report != "likely":
        return {}
    draws = Draws(rows, tune, 1 if better == "higher" else -1)
    found: dict[str, list[Mapping[str, Any]]] = {}
    for method in dict.fromkeys(row.method for row in rows if row.purpose == "tune"):
        side = _side(rows, tune.metric, tune.metric, method, {})
        if side.chosen:
            best = np.unique(draws.best(method, side))
            found[method] = [json.loads(side.names[number]) for number in best if number >= 0]
    return found


def _side(
    rows: Sequence[TidyRow], chooses: str, metric: str, method: str, at: Mapping[str, Any]
) -> Side:
    side = Side()
    for row in rows:
        if row.method != method:
            continue
        setting = _setting(row)
        if row.purpose == "tune":
            if row.metric == chooses:
                side.tuning.setdefault(setting, {})[row.seed] = row.value
        elif row.metric != metric or not math.isfinite(row.value):
            continue
        elif all(row.axes.get(k) == v for k, v in at.items()):
            side.tests.setdefault(setting, {}).setdefault(row.seed, []).append(row.value)
    return side


def _setting(row: TidyRow) -> str:
    return json.dumps(dict(row.choice), sort_keys=True)
