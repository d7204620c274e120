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
from itertools import combinations_with_replacement
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

    def best(self, drawn: NDArray[np.int64], order: Sequence[int], sign: int) -> NDArray[np.int64]:
        """For each draw of tuning seeds (D, S) the number of the setting that is best on them."""
        if not self.chosen:
            return np.zeros(len(drawn), np.int64)
        values = np.array([[one.get(seed, -sign * math.inf) for seed in order]
                           for one in self.tuning.values()])  # fmt: skip
        return np.argmax(sign * values[:, drawn].mean(-1), axis=0)


def widened(
    found: Interval,
    rows: Sequence[TidyRow],
    tune: Tune,
    metrics: tuple[str, str],
    places: tuple[Place, Place],
    better: Literal["higher", "lower"],
) -> Interval:
    """The interval of a difference of two places with the choice of settings in it; as it is where fewer
    than two tuning or reported seeds have every setting that a draw chooses."""
    both = zip(metrics, places, strict=True)
    sides = [_side(rows, tune.metric, metric, *place) for metric, place in both]
    seeds = sorted(sides[0].seeds() & sides[1].seeds())
    tried = any(side.chosen for side in sides)
    if not tried or found.n < 2 or len(seeds) < 2 or len(tune.seeds) < 2:
        return found
    random, sign = np.random.default_rng(0), 1 if better == "higher" else -1
    tuning = random.integers(len(tune.seeds), size=(DRAWS, len(tune.seeds)))
    reported = random.integers(len(seeds), size=(DRAWS, len(seeds)))
    means = []
    for side in sides:
        best = side.best(tuning, tune.seeds, sign)
        means.append(side.table(seeds)[best[:, None], reported].mean(-1))
    if not np.isfinite(means).all():
        return found
    # The bootstrap's variance of a mean of n is (n - 1) / n of the unbiased one.
    spread = float(np.std(means[0] - means[1])) * math.sqrt(len(seeds) / (len(seeds) - 1))
    sd = max(found.sd, spread * math.sqrt(found.n))
    half = critical(found.n - 1) * sd / math.sqrt(found.n)
    return replace(found, low=found.mean - half, high=found.mean + half, sd=sd)


def likely(
    rows: Sequence[TidyRow], tune: Tune, better: Literal["higher", "lower"]
) -> dict[str, list[Mapping[str, Any]]]:
    """For each method the settings that some draw of as many of the tuning seeds would choose."""
    sign, size = 1 if better == "higher" else -1, len(tune.seeds)
    drawn = np.array(list(combinations_with_replacement(range(size), size)))
    found: dict[str, list[Mapping[str, Any]]] = {}
    for method in dict.fromkeys(row.method for row in rows if row.purpose == "tune"):
        side = _side(rows, tune.metric, tune.metric, method, {})
        if side.chosen:
            best = np.unique(side.best(drawn, tune.seeds, sign))
            found[method] = [json.loads(side.names[number]) for number in best]
    return found


def _side(
    rows: Sequence[TidyRow], chooses: str, metric: str, method: str, at: Mapping[str, Any]
) -> Side:
    side = Side()
    for row in rows:
        if row.method != method:
            continue
        setting = json.dumps(dict(row.choice), sort_keys=True)
        if row.purpose == "tune":
            if row.metric == chooses:
                side.tuning.setdefault(setting, {})[row.seed] = row.value
        elif row.metric == metric and all(row.axes.get(k) == v for k, v in at.items()):
            side.tests.setdefault(setting, {}).setdefault(row.seed, []).append(row.value)
    return side
