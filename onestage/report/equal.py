"""What methods keep where they have gained as much: every setting of every method, on all seeds.

A method that learns less forgets less, so retention is compared among settings that gained nearly as
much as the best. Which of a method's settings stands for it is chosen on validation where trials say it.
The hypervolume takes all settings together: the area under a method's front of gain and retention, of a
square from the base's gain to the seed's best, and from nothing kept to everything.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from onestage.report.cells import Cell, Compared, Setting
from onestage.report.figures import Figure, Look, axis, rounded
from onestage.report.markup import Html, el, join, table
from onestage.report.numbers import UNKNOWN, mean_of, number
from onestage.report.reading import is_number, mapping
from onestage.report.results import MEANS
from onestage.stats import Interval, hypervolume

SHARE = 0.9
"""Of the best gain, that counts as equal."""
DISTANCES = {"gap/x": 1.0, "gap/y": 1.0, "ideal_distance": math.sqrt(2)}
"""What is 0 at the best that there is, with its value at the start: what is gained is how much less of
it there is, as a part of that."""
COSTS = (("cost", 1), ("cost", -1))
"""Seconds and the like, by group and sign: nobody forgets them."""
Choice = tuple[Setting, str]
"""A setting, and what was tried in it as text."""


@dataclass
class Tried:
    """All that was tried of a study whose settings ran on reported seeds too."""

    gain: str
    title: str
    """Of its axis."""
    share: float
    kept: list[str]
    base: float | None = None
    """What the base has of the gain, where that is no measurement of its own."""
    tests: dict[Choice, list[Cell]] = field(default_factory=dict)
    trials: dict[Choice, list[Cell]] = field(default_factory=dict)
    seeds: int = 0
    """Of tuning: a setting without a number on one of them is not chosen, as by tuning."""

    @property
    def chosen_on(self) -> dict[Choice, list[Cell]]:
        """Trials on validation, where every setting has some; else the tests themselves."""
        return self.trials if self.trials.keys() >= self.tests.keys() else self.tests

    @property
    def on_validation(self) -> bool:
        return self.chosen_on is self.trials

    def reach(self) -> set[Choice]:
        """The settings whose mean gain is at least the share of the best one's."""
        gains = {one: gain for one in self.tests if (gain := self._chosen(one, self.gain))}
        top = max((gain.mean for gain in gains.values()), default=math.nan)
        return {one for one, gain in gains.items() if gain.mean >= self.share * top}

    def keeper(self, method: str, metric: str, sign: int) -> Choice | None:
        """The setting of a method that keeps most of a metric among those that gained enough; of several
        that keep as much the first by name, in whatever order they were read."""
        mine = {
            one: kept
            for one in self.reach()
            if one[0].method == method and (kept := self._chosen(one, metric))
        }
        named = sorted(mine, key=lambda one: (one[0].label, one[1]))
        return max(named, key=lambda one: sign * mine[one].mean, default=None)

    def mean(self, one: Choice, metric: str) -> Interval | None:
        return _mean(self.tests[one], metric)

    def _chosen(self, one: Choice, metric: str) -> Interval | None:
        cells = [cell for cell in self.chosen_on.get(one, []) if metric in cell.results]
        return _mean(cells, metric) if not self.on_validation or len(cells) >= self.seeds else None


def _mean(cells: Sequence[Cell], metric: str) -> Interval | None:
    return mean_of([cell.results[metric] for cell in cells if metric in cell.results])


def tried(found: Compared) -> Tried | None:
    """None where only settings that are likely to be chosen ran on the reported seeds, or nothing says
    what was gained."""
    tune = mapping(found.about.get("tune"))
    if tune.get("report") == "likely" or not any(cell.purpose == "grid" for cell in found.cells):
        return None
    asked = {k: v for k, v in mapping(tune.get("at_least")).items() if is_number(v)}
    named = [*asked, *(found.front or ())[:1], str(tune.get("metric"))]
    known = {n: m for n in named if (m := found.metrics.get(n)) and (m.sign > 0 or n in DISTANCES)}
    gain = next(iter(known), None)
    if gain is None or len(found.grounds) > 1:
        return None
    whole = _by_distance(found, gain) if gain in DISTANCES else _by_metric(found, gain, asked)
    if not whole.kept:
        return None
    whole.seeds = len(tune.get("seeds") or ())
    for cell in found.cells:
        if cell.method != found.base:  # with those that failed: a setting that failed was tried
            place = whole.trials if cell.purpose == "tune" else whole.tests
            key = cell.setting, json.dumps(dict(cell.choice), sort_keys=True, default=str)
            place.setdefault(key, []).append(_gained(cell, gain) if whole.gain != gain else cell)
    return whole


def _by_metric(found: Compared, gain: str, asked: Mapping[str, float]) -> Tried:
    tune, title = mapping(found.about.get("tune")), found.metrics[gain].title
    first = [found.front[1] if found.front else "", str(tune.get("metric"))]
    return Tried(gain, title, asked.get(gain, SHARE), _retentions(found, gain, first))


def _by_distance(found: Compared, name: str) -> Tried:
    title = f"gain: 1 - {name} / {DISTANCES[name]:.3g} (higher is better)"
    kept = [one for one in _retentions(found, name, []) if one not in DISTANCES]
    return Tried("gain", title, SHARE, kept, base=0.0)


def _gained(cell: Cell, name: str) -> Cell:
    """The cell with what it gained, where it has the distance."""
    if name not in cell.results:
        return cell
    gain = 1 - cell.results[name] / DISTANCES[name]
    return replace(cell, results={**cell.results, "gain": gain})


def _retentions(found: Compared, gain: str, first: Sequence[str]) -> list[str]:
    """What is kept: the metrics named first, then of each other group the first of the headline, but for
    what a run costs."""
    taken, names = {(found.metrics[gain].group, 1), *COSTS}, list[str]()
    for name in [*first, *found.headline]:
        metric = found.metrics.get(name)
        if metric is None or not metric.sign or name in (gain, *MEANS, *names):
            continue
        if name in first or (metric.group, metric.sign) not in taken:
            names.append(name)
            taken.add((metric.group, metric.sign))
    return names


@dataclass(frozen=True)
class Kept:
    """What a method keeps of one metric where it gained enough, and in which of its settings."""

    metric: str
    mean: Interval | None
    choice: str
    hypervolume: Interval | None


@dataclass(frozen=True)
class Line:
    """A method at equal gain."""

    method: str
    enough: int
    """Of its settings, how many gain enough."""
    settings: int
    gain: Interval | None
    """The best of those."""
    kept: list[Kept]


def equal_lines(found: Compared, whole: Tried) -> list[Line]:
    """A line a method, in their order."""
    methods = dict.fromkeys(one.method for one, _ in whole.tests)
    return [_line(found, whole, method) for method in sorted(methods, key=found.methods.index)]


def _line(found: Compared, whole: Tried, method: str) -> Line:
    mine, reach = [one for one in whole.tests if one[0].method == method], whole.reach()
    enough = [one for one in mine if one in reach]
    gains = [gain for one in enough if (gain := whole.mean(one, whole.gain))]
    best = max(gains, key=lambda one: one.mean, default=None)
    kept = [_kept_of(found, whole, method, name) for name in whole.kept]
    return Line(method, len(enough), len(mine), best, kept)


def _kept_of(found: Compared, whole: Tried, method: str, metric: str) -> Kept:
    keeper = whole.keeper(method, metric, found.metrics[metric].sign)
    mean = whole.mean(keeper, metric) if keeper else None
    choice = keeper[1] if keeper else ""
    return Kept(metric, mean, choice, volume(found, whole, method, metric))


def equal_note(whole: Tried) -> str:
    """How the lines are to be read."""
    chosen = "on validation" if whole.on_validation else "by the test itself, so it is flattered"
    return (
        "Of each method the setting that keeps most of a metric, among those that reach "
        f"{whole.share:g} of the best {whole.gain} of any, chosen {chosen}; ± half of the 95 % interval "
        "over seeds. Hypervolume: of all of a method's settings, gain and retention at once, 0 to 1."
        + _lacking(whole)
    )


def _lacking(whole: Tried) -> str:
    """How many points are missing, where any are."""
    cells = [cell for some in whole.tests.values() for cell in some]
    lacking = sum(whole.gain not in cell.results for cell in cells)
    if not lacking:
        return ""
    return (
        f" {lacking} of {len(cells)} cells failed or have not run: these points are missing in it."
    )


def equal_section(found: Compared, looks: Mapping[str, Look]) -> Html | None:
    """The figure of all settings, and a row a method."""
    whole = tried(found)
    if whole is None:
        return None
    heads: list[object] = ["method", "settings that reach it", f"{whole.gain} ↑"]
    for name in whole.kept:
        heads += [f"{name}{found.metrics[name].arrow}", f"hypervolume with {name} ↑"]
    rows = [_row(line, looks) for line in equal_lines(found, whole)]
    figure, note = _figure(found, whole, looks), el("p", equal_note(whole), class_="note")
    return join([note, table(heads, rows, class_="results"), figure.html()])


def _row(line: Line, looks: Mapping[str, Look]) -> list[object]:
    chip = el("span", looks[line.method].chip, line.method, class_="method")
    told: list[object] = [chip, f"{line.enough} of {line.settings}", _told(line.gain)]
    for kept in line.kept:
        told += [_told(kept.mean), _told(kept.hypervolume)]
    return told


def _told(mean: Interval | None) -> object:
    if mean is None:
        return el("td", UNKNOWN, class_="none")
    half = el("small", " ± ", number(mean.half)) if mean.half is not None else None
    return el("td", number(mean.mean), half, title=f"{mean.n} seeds")


def volume(found: Compared, whole: Tried, method: str, metric: str) -> Interval | None:
    """Hypervolume of gain and retention of a method's settings, seed by seed.

    Gain: from the base's (0) to the best of any setting of the seed (1). Retention: a share as it is; of
    a metric that is better lower e^-(its rise over the base's), at most 1.
    """
    values = []
    for seed in sorted({cell.seed for cells in whole.tests.values() for cell in cells}):
        base = {k: v for cell in found.tested if cell.method == found.base and cell.seed == seed
                for k, v in cell.results.items()}  # fmt: skip
        start = base.get(whole.gain, math.inf) if whole.base is None else whole.base
        cells = [c for some in whole.tests.values() for c in some if c.seed == seed]
        gains = [cell.results[whole.gain] for cell in cells if whole.gain in cell.results]
        if not gains or max(gains) <= start:
            continue
        points = []
        for cell in cells:
            kept = _kept(found, metric, cell.results.get(metric), base.get(metric))
            if cell.method == method and kept is not None and whole.gain in cell.results:
                gained = (cell.results[whole.gain] - start) / (max(gains) - start)
                points.append((1 - gained, 1 - kept))
        if points:
            values.append(hypervolume(points, (1.0, 1.0)))
    return mean_of(values)


def _kept(found: Compared, metric: str, value: float | None, base: float | None) -> float | None:
    if value is None:
        return None
    if found.metrics[metric].sign > 0:
        return value if found.share(metric) else None
    return None if base is None else math.exp(-max(0.0, value - base))


def _figure(found: Compared, whole: Tried, looks: Mapping[str, Look]) -> Figure:
    """Every setting of every method, and the gain that counts as equal."""
    traces: list[dict[str, Any]] = []
    for name in whole.kept:
        methods = dict.fromkeys(one.method for one, _ in whole.tests)
        points = [_points(whole, name, method, looks[method]) for method in methods]
        traces += [*points, *_limit(whole, name, [y for one in points for y in one["y"]])]
    units = {name: found.metrics[name].title for name in whole.kept}
    layout = {"xaxis": axis(whole.title), "yaxis": axis(units[whole.kept[0]])}
    note = f"Means over seeds. Dashed: {whole.share:g} of the best {whole.gain} of the test."
    title = f"Every setting: {whole.gain} and what is kept"
    more = {"units": units}
    return Figure(title, traces, layout, note, height=380, pick="kept", more=more)


def _points(whole: Tried, name: str, method: str, look: Look) -> dict[str, Any]:
    both = [
        (gain.mean, kept.mean, f"{one.label}\n{choice}")
        for one, choice in whole.tests
        if one.method == method
        and (gain := whole.mean((one, choice), whole.gain))
        and (kept := whole.mean((one, choice), name))
    ]
    return {
        "x": [rounded(x) for x, _, _ in both],
        "y": [rounded(y) for _, y, _ in both],
        "text": [text for _, _, text in both],
        "only": True,
        "mode": "markers",
        "name": method,
        "marker": {"color": look.colour, "symbol": look.symbol, "size": 9},
        "pick": name,
    }


def _limit(whole: Tried, name: str, ys: Sequence[float]) -> list[dict[str, Any]]:
    """The line beyond which gains count as equal."""
    gains = [gain.mean for one in whole.tests if (gain := whole.mean(one, whole.gain))]
    if not gains or not ys:
        return []
    line = {"color": "@soft", "dash": "dash", "width": 1.4}
    at = {"x": [rounded(whole.share * max(gains))] * 2, "y": [min(ys), max(ys)]}
    return [{**at, "mode": "lines", "line": line, "hoverinfo": "skip", "pick": name}]
