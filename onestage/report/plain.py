"""Plain runs side by side: each is a method of its own, its numbers are those of its last evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from onestage.report.benchmarks import Benchmarks, benchmarks
from onestage.report.cells import Cell, Compared, Metric
from onestage.report.reading import Reader, is_number
from onestage.report.trained import Trained, read_run

SHOWN = 8
"""Measures of the first table; the verdict goes by all."""
WHILE = "while training"
START = "start"
"""The base of plain runs: what was measured before the first step."""


def read_plain(folders: Sequence[Path]) -> Compared:
    """Read run folders; they are told apart by as much of their paths as that takes."""
    reader = Reader()
    runs = [read_run(f, name, reader) for f, name in zip(folders, _names(folders), strict=True)]
    asked = benchmarks(runs, reader)
    metrics = _beside(asked, runs, evaluated(runs))
    ends = {run.name: _last(run, metrics, asked) for run in runs}
    lost = {run: [name for name, v in end.items() if math.isnan(v)] for run, end in ends.items()}
    cells = [_cell(run, ends[run.name], lost[run.name], asked, reader) for run in runs]
    names = [*asked.headlines, *(metric.name for metric in metrics.values())]
    methods, base = [run.name for run in runs], None
    started = asked.start | start_of(runs, metrics)
    if started:
        methods, base = [START, *methods], START
        cells.insert(0, Cell(START, START, results=started))
    return Compared(
        runs[0].name if len(runs) == 1 else f"{len(runs)} runs",
        folders[0],
        methods,
        cells,
        asked.metrics | {metric.name: metric for metric in metrics.values()},
        names[:SHOWN],
        base,
        troubles=reader.troubles,
        is_study=False,
        certain={
            run.name: _by_item(run, metrics, "half") | asked.certain.get(run.name, {})
            for run in runs
        },
        paired={run.name: _by_item(run, metrics, "change") for run in runs},
        judges=names,
        lost=lost,
    )


def _beside(
    asked: Benchmarks, runs: Sequence[Trained], metrics: Mapping[str, Metric]
) -> dict[str, Metric]:
    """What runs measured as they went, beside what was asked of their models in the end. A suite that
    was asked of all of them once more counts by that alone; one that was of some stands twice, under
    other names, for it is of other items."""
    found = {}
    for key, one in metrics.items():
        again = [_again(key, asked, run) for run in runs if run.series(key)]
        if not any(_again(key, asked, run) for run in runs):
            found[key] = one
        elif not all(again):
            found[key] = replace(one, name=f"{one.name}, {WHILE}", says=f"{one.says}, {WHILE}")
    return found


def _again(key: str, asked: Benchmarks, run: Trained) -> bool:
    """Whether a number is of a suite that was asked once more of the model that the run left."""
    return key.startswith("suite/") and key.split("/")[1] in asked.suites.get(run.name, ())


def _cell(
    run: Trained, end: Mapping[str, float], lost: Sequence[str], asked: Benchmarks, reader: Reader
) -> Cell:
    """end: what was last measured, among it `lost`, which is no number."""
    results = {name: value for name, value in end.items() if name not in lost}
    if lost:
        reader.tell(run.name, f"no number at the last evaluation: {', '.join(lost)}")
    results |= {name: one.value for name, one in asked.numbers.get(run.name, {}).items()}
    if not results:
        reader.tell(run.name, "was not evaluated (train.eval_steps)")
    state = "done" if run.done else "interrupted"
    return Cell(
        run.name,
        run.name,
        run.seed,
        state=state,
        results=results,
        seconds=run.seconds,
        trained=run,
    )


def _last(run: Trained, metrics: Mapping[str, Metric], asked: Benchmarks) -> dict[str, float]:
    """What was last measured of the model that the run left; NaN where that is no number."""
    # A suite that was asked of the start model alone says nothing of the trained one.
    once = {key for key in metrics if key.startswith("suite/") and len(run.series(key)) < 2}
    once |= {key for key in metrics if _again(key, asked, run)}
    last = {metric.name: run.last(key) for key, metric in metrics.items() if key not in once}
    return {name: value for name, value in last.items() if value is not None}


def _names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that differ."""
    parts = [folder.resolve().parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{part[-1]} ({n})" for n, part in enumerate(parts, 1)]


def evaluated(runs: Sequence[Trained]) -> dict[str, Metric]:
    """What can stand in a table of everything that evaluations and probes measured, by its key."""
    keys = dict.fromkeys(key for run in runs for key in run.measured())
    losses = {key: m for key in keys if key.startswith("eval/terms/") and (m := _metric(key))}
    if not losses and "eval/loss" in keys:
        losses["eval/loss"] = Metric("loss", "held-out loss", "lower", "losses")
    others = {key: metric for key in keys if key not in losses and (metric := _metric(key))}
    asked = {
        key: _of_suite(key, runs) for key in keys if key.count("/") == 2 and key[:6] == "suite/"
    }
    found: dict[str, Metric] = {}
    taken: set[str] = set()
    for key, metric in (asked | losses | others).items():
        name = f"{metric.name} ({metric.group})" if metric.name in taken else metric.name
        name = key if name in taken else name
        found[key] = Metric(name, metric.says, metric.better, metric.group)
        taken.add(name)
    return found


def _of_suite(key: str, runs: Sequence[Trained]) -> Metric:
    _, suite, name = key.split("/")
    lower = any(run.suites().get(key, {}).get("lower") for run in runs)
    better = None if name in ("items", "stopped") else "lower" if lower else "higher"
    told = name.replace("_", " ")
    return Metric(f"{suite} {told}", f"suite {suite}: {told}", better, "suites")


def _by_item(run: Trained, metrics: Mapping[str, Metric], what: str) -> dict[str, float]:
    """Changes of suites, or half-widths of their intervals, paired by item."""
    return {
        metrics[key].name: told[what]
        for key, told in run.suites().items()
        if key in metrics and is_number(told.get(what))
    }


def _metric(key: str) -> Metric | None:
    """A short name and what it is; None for what stands in no table."""
    first, _, rest = key.partition("/")
    place, _, what = rest.rpartition("/")
    stream = place.split("/")[0]
    if first == "retention":
        names = {
            "loss": ("loss", "held-out loss of the kept text"),
            "kl": ("KL", "KL to the start on"),
        }
        if what in names:
            name, says = names[what]
            return Metric(f"{place} {name}", f"{says} {place}", "lower", "kept")
    if first != "eval":
        return None
    if place == "terms":
        return Metric(f"{what} loss", f"held-out loss of the term {what}", "lower", "losses")
    if what in ("success", "accuracy", "label_accuracy"):
        right = {"success": "problems solved", "accuracy": "pairs the right way round"}
        told = right.get(what, "labels the right way round")
        name = f"{stream} {what.removeprefix('label_')}"
        return Metric(name, f"share of {told}, held-out rows of {stream}", "higher", "accuracy")
    if what == "score_error":
        says = f"mean distance of implicit and given score, held-out rows of {stream}"
        return Metric(f"{stream} score error", says, "lower", "calibration")
    return None


def start_of(runs: Sequence[Trained], metrics: Mapping[str, Metric]) -> dict[str, float]:
    """What was measured before the first step: by any run where all say that they began from the same
    model, else only what all measured, and alike."""
    models = {str(part.manifest.get("model")) for run in runs for part in run.parts[:1]}
    same = len(models) == 1 and models != {"None"}
    found: dict[str, float] = {}
    for key, metric in metrics.items():
        having = [series for run in runs if (series := run.series(key))]
        first = [series[0][1] if series[0][0] == 0 else None for series in having]
        known = [value for value in first if value is not None]
        if not known or (len(known) < len(first) and not same):
            continue
        # Several runs of one model measure the same but for rounding; others have no common start.
        if max(known) - min(known) <= 1e-4 * max(1.0, abs(known[0])):
            found[metric.name] = known[0]
    return found
