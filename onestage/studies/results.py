"""The tables of a study: one tidy one of everything found, and what follows from it."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from onestage.report.measured import place_of
from onestage.runfolder import read_json, write_text
from onestage.runfolder.disk import whole_path
from onestage.stats import Interval, holm, hypervolume, ideal_distance, interval, normalised, paired
from onestage.studies.cells import Cell
from onestage.studies.file import Front
from onestage.studies.verdicts import FEWEST
from onestage.studies.worlds import Metric

FRONT = {
    "gap/x": Metric(
        "gap of x to the best of any run of its seed; 1 at the start", "lower", "trade-off"
    ),
    "gap/y": Metric(
        "gap of y to the best of any run of its seed; 1 at the start", "lower", "trade-off"
    ),
    "ideal_distance": Metric("distance from the best of both, in these gaps", "lower", "trade-off"),
    "hypervolume": Metric(
        "what a method's front covers, of 1, over its axis", "higher", "trade-off"
    ),
}
"""What a study with a front finds besides."""


def beside(name: str, known: Mapping[str, Metric]) -> Metric:
    """What is said of a metric that is none of the world's: one of these after a stage, or a run's."""
    first, _, rest = name.partition("/")
    stage, _, metric = rest.partition("/")
    if first == "after" and metric in known:
        return Metric(f"after the stage {stage}: {known[metric].says}", known[metric].better, first)
    if first == "left" and metric in known:
        return Metric(f"share that is left of {metric} as it was after {stage}", "higher", first)
    return Metric("", _better(name), first)


def _better(name: str) -> Literal["higher", "lower"] | None:
    """Which way a number that a run measures itself is better; None where nobody knows."""
    measured = name.removeprefix("start/").removeprefix("average_")
    if measured.startswith("keep/"):
        return "lower" if measured.endswith(("/measured", "/held_out")) else None
    place = place_of(measured)
    if place and place.better in ("higher", "lower"):
        return "higher" if place.better == "higher" else "lower"
    return "lower" if name.endswith(("loss", "/kl")) else None


@dataclass(frozen=True)
class TidyRow:
    """One number: a row of `results.csv`."""

    purpose: str
    method: str
    axes: Mapping[str, Any]
    seed: int
    cell: str
    metric: str
    value: float
    choice: Mapping[str, Any] = field(default_factory=dict)
    """The settings that tuning tried or chose."""

    @property
    def place(self) -> tuple[str, tuple[Any, ...]]:
        """Method and values of axes: what a mean over seeds is of."""
        return self.method, tuple(sorted(self.axes.items(), key=str))


def gather(cells: Iterable[Cell], folder: Path) -> list[TidyRow]:
    """Every number of the cells that are done. A damaged file of results is as if there were none."""
    rows = []
    for cell in cells:
        for metric, value in found(folder / cell.name).items():
            rows.append(
                TidyRow(
                    *(cell.purpose, cell.method, cell.axes, cell.seed, cell.name, metric, value),
                    cell.choice,
                )
            )
    return rows


def found(folder: Path) -> dict[str, float]:
    """What a cell found; nothing where it is not done or its results cannot be read."""
    try:
        if read_json(folder / "status.json")["state"] != "done":
            return {}
        results = read_json(folder / "results.json").items()
        return {str(k): float(v) for k, v in results if isinstance(v, int | float)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def noted(cells: Sequence[Cell], folder: Path) -> list[str]:
    """What worlds said of judging the cells, each sentence once, with how many cells it was said of."""
    counts: dict[str, int] = {}
    for cell in cells:
        with suppress(OSError, ValueError, AttributeError):
            for note in read_json(folder / cell.name / "status.json").get("notes") or ():
                counts[note] = counts.get(note, 0) + 1
    return [f"{note} (in {count} of {len(cells)} cells)" for note, count in counts.items()]


def traded(
    rows: Sequence[TidyRow], front: Front | None, world_axes: Sequence[str] = ()
) -> list[TidyRow]:
    """Gaps, ideal distance and hypervolume of two losses: normalised by the start's, best of the seed.

    f* is the lowest that any run of the same seed ended with (Fernando et al. 2024 measure it by runs
    of one objective alone; include those as methods to have the same). The start is 1, the best 0.
    Settings that were not chosen are seen from the best of those that were. world_axes: those on which
    runs start from other models, or are measured on other data; at each value there is another f*.
    """
    made: list[TidyRow] = []
    if front is None:
        return made
    for purpose, among in (("tune", "tune"), ("test", "test"), ("grid", "test")):
        mine, others = ([r for r in rows if r.purpose == one] for one in (purpose, among))
        placed = _gaps(mine, others, front, world_axes)
        for row, gap in placed:
            numbers = {f"gap/{name}": value for name, value in gap.items()}
            numbers["ideal_distance"] = ideal_distance(gap)
            made += [replace(row, metric=name, value=value) for name, value in numbers.items()]
        made += _volumes(placed, front.over) if front.over is not None else []
    return made


def _gaps(
    rows: Sequence[TidyRow], among: Sequence[TidyRow], front: Front, world_axes: Sequence[str]
) -> list[tuple[TidyRow, dict[str, float]]]:
    """A row of every cell with its normalised gaps `x` and `y`, where both can be said. among: the rows
    that the start and the best are taken from."""
    ends: dict[str, dict[str, TidyRow]] = {}
    best: dict[Any, dict[str, float]] = {}
    start: dict[Any, dict[str, float]] = {}

    def ground(row: TidyRow) -> Any:
        return row.seed, *(json.dumps(row.axes.get(axis)) for axis in world_axes)

    for name, metric in (("x", front.x), ("y", front.y)):
        for row in rows:
            if row.metric == metric:
                ends.setdefault(row.cell, {})[name] = row
        for row in among:
            if row.metric == metric and math.isfinite(row.value):
                lowest = best.setdefault(ground(row), {})
                lowest[name] = min(lowest.get(name, row.value), row.value)
            elif row.metric == f"start/{metric}":
                start.setdefault(ground(row), {}).setdefault(name, row.value)
    placed = []
    for both in ends.values():
        row = next(iter(both.values()))
        losses = {name: one.value for name, one in both.items()}
        gap = normalised(losses, best.get(ground(row), {}), start.get(ground(row), {}))
        if len(gap) == 2:
            placed.append((row, dict(sorted(gap.items()))))
    return placed


def _volumes(placed: Sequence[tuple[TidyRow, Mapping[str, float]]], over: str) -> list[TidyRow]:
    """The hypervolume between the front of a method's setting along the axis `over` and the start, for
    each seed."""
    fronts: dict[Any, list[tuple[float, float]]] = {}
    firsts: dict[Any, TidyRow] = {}
    for row, gap in placed:
        rest = {key: value for key, value in row.axes.items() if key != over}
        choice = json.dumps(dict(row.choice), sort_keys=True)
        key = row.method, choice, tuple(rest.items()), row.seed
        firsts.setdefault(key, replace(row, axes=rest, cell="", metric="hypervolume"))
        fronts.setdefault(key, []).append((gap["x"], gap["y"]))
    return [
        replace(firsts[key], value=hypervolume(points, (1.0, 1.0)))
        for key, points in fronts.items()
        if len(points) > 1
    ]


def by_place(rows: Iterable[TidyRow], metric: str) -> dict[Any, dict[int, float]]:
    """Test values of a metric by seed, of every method and value of axes, in order of appearance."""
    values: dict[Any, dict[int, float]] = {}
    for row in rows:
        if row.metric == metric and row.purpose == "test" and math.isfinite(row.value):
            values.setdefault(row.place, {})[row.seed] = row.value
    return values


def metrics_of(rows: Iterable[TidyRow]) -> list[str]:
    return list(dict.fromkeys(row.metric for row in rows))


def summary(rows: Sequence[TidyRow], axes: Sequence[str]) -> list[dict[str, Any]]:
    """Mean and interval over seeds, of every metric at every place."""
    table = []
    for metric in metrics_of(rows):
        for (method, at), values in by_place(rows, metric).items():
            line = {"method": method, **_axes(at, axes), "metric": metric}
            table.append({**line, **_numbers(interval(list(values.values())))})
    return table


def differences(rows: Sequence[TidyRow], axes: Sequence[str], metrics: Sequence[str]) -> list[Any]:
    """Every pair of methods at the same values of axes, over the seeds that both have.

    `p_holm` is adjusted for all pairs of a metric.
    """
    table: list[dict[str, Any]] = []
    for metric in metrics:
        values, lines = by_place(rows, metric), []
        for (one, at), (other, there) in combinations(values, 2):
            if at != there or one == other:
                continue
            difference, p, seeds = compared(values[one, at], values[other, there])
            if seeds:
                line = {"metric": metric, "method": one, "against": other, **_axes(at, axes)}
                # Two or three values that differ alike by chance would have a p of 0.
                p = p if len(seeds) >= FEWEST else math.nan
                numbers = {"difference": difference.mean, **_numbers(difference), "p": p}
                lines.append({**line, **{k: v for k, v in numbers.items() if k != "mean"}})
        for line, adjusted in zip(lines, holm([line["p"] for line in lines]), strict=True):
            table.append({**line, "p_holm": adjusted})
    return table


def compared(
    left: Mapping[int, float], right: Mapping[int, float]
) -> tuple[Interval, float, list[int]]:
    """Difference over the seeds that both have."""
    seeds = sorted(set(left) & set(right))
    found, p = paired([left[seed] for seed in seeds], [right[seed] for seed in seeds])
    return found, p, seeds


def _axes(at: tuple[Any, ...], axes: Sequence[str]) -> dict[str, Any]:
    values = dict(at)
    return {axis: values.get(axis, "") for axis in axes}


def _numbers(found: Interval) -> dict[str, Any]:
    return {
        "mean": found.mean,
        "low": found.low,
        "high": found.high,
        "sd": found.sd,
        "n": found.n,
    }


def write_tidy(folder: Path, rows: Sequence[TidyRow], axes: Sequence[str]) -> None:
    """`results.csv` and `results.parquet`."""
    lines = [
        {
            **{"purpose": row.purpose, "method": row.method},
            **{axis: _text(row.axes.get(axis, "")) for axis in axes},
            **{"seed": row.seed, "cell": row.cell, "metric": row.metric, "value": row.value},
            "choice": json.dumps(dict(row.choice)),
        }
        for row in rows
    ]
    write_table(folder / "results.csv", lines)
    if lines:
        with whole_path(folder / "results.parquet") as draft:
            pq.write_table(pa.Table.from_pylist(lines), draft)


def read_tidy(folder: Path, axes: Mapping[str, Sequence[Any]]) -> list[TidyRow]:
    """The rows of a study folder's `results.parquet`; `axes`: the study's, with their values."""
    values = {axis: {_text(value): value for value in many} for axis, many in axes.items()}
    rows = []
    for line in pq.read_table(folder / "results.parquet").to_pylist():
        at = {axis: known[line[axis]] for axis, known in values.items() if line.get(axis) in known}
        choice = json.loads(line.get("choice") or "{}")
        name, metric, value = line["cell"], line["metric"], line["value"]
        rows.append(
            TidyRow(line["purpose"], line["method"], at, line["seed"], name, metric, value, choice)
        )
    return rows


def write_table(file: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Comma-separated, numbers to six significant digits."""

    # The csv module wants a file; the table is to appear whole or not at all.
    class Lines(list[str]):
        def write(self, text: str) -> None:
            self.append(text)

    out = Lines()
    names = list(dict.fromkeys(name for line in lines for name in line))
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({name: _written(value) for name, value in line.items()})
    write_text(file, "".join(out))


def _written(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return _text(value)


def _text(value: Any) -> Any:
    """A value of an axis: one column, one type."""
    return value if isinstance(value, str) else json.dumps(value)
