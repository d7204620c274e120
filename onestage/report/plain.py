"""Plain runs side by side: each is a method of its own, its numbers are those of its last evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from onestage.report.cells import Cell, Compared, Metric
from onestage.report.reading import Reader
from onestage.report.trained import Trained, read_run

START = "start"
"""The base of plain runs: what was measured before the first step."""


def read_plain(folders: Sequence[Path]) -> Compared:
    """Read run folders; they are told apart by as much of their paths as that takes."""
    reader = Reader()
    runs = [read_run(f, name, reader) for f, name in zip(folders, _names(folders), strict=True)]
    metrics = _metrics(runs)
    cells = [
        Cell(
            run.name,
            run.name,
            run.seed,
            results={name: value for name in metrics if (value := run.last(name)) is not None},
            seconds=run.seconds,
            trained=run,
        )
        for run in runs
    ]
    methods, base = [run.name for run in runs], None
    started = _start(runs, list(metrics))
    if started:
        methods, base = [START, *methods], START
        seeds = dict.fromkeys(cell.seed for cell in cells)
        cells = [Cell(START, START, seed, results=started) for seed in seeds] + cells
    for run, cell in zip(runs, list(cells[-len(runs) :]), strict=True):
        if not cell.results:
            reader.tell(run.name, "was not evaluated (train.eval_steps)")
            cells[cells.index(cell)] = replace(cell, state="unfinished")
    name = runs[0].name if len(runs) == 1 else f"{len(runs)} runs"
    losses = [name for name in metrics if name.startswith("eval/terms/")]
    return Compared(
        name,
        folders[0],
        methods,
        cells,
        metrics,
        list(metrics)[:8],
        base,
        front=(losses[0], losses[1]) if len(losses) > 1 else None,
        troubles=reader.troubles,
        is_study=False,
    )


def _names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that differ."""
    parts = [folder.resolve().parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{'/'.join(part[-1:])} ({n})" for n, part in enumerate(parts, 1)]


def _metrics(runs: Sequence[Trained]) -> dict[str, Metric]:
    """What can stand in a table, of everything that evaluations and probes measured."""
    keys = dict.fromkeys(key for run in runs for key in run.measured())
    found: dict[str, Metric] = {}
    for key in keys:
        stem, _, what = key.rpartition("/")
        if stem == "eval/terms":
            found[key] = Metric(key, f"held-out loss of {what}", "lower", "losses")
    if not found and "eval/loss" in keys:
        found["eval/loss"] = Metric("eval/loss", "held-out loss", "lower", "losses")
    for key in keys:
        stem, _, what = key.rpartition("/")
        place = stem.removeprefix("eval/")
        if key.startswith("eval/") and what in ("success", "accuracy", "label_accuracy"):
            found[key] = Metric(key, f"{what.replace('_', ' ')} on {place}", "higher", "accuracy")
        elif key.startswith("eval/") and what == "score_error":
            says = f"distance of implicit and given score on {place}"
            found[key] = Metric(key, says, "lower", "calibration")
        elif key.startswith("retention/") and what in ("loss", "kl"):
            says = f"{'KL to the start' if what == 'kl' else 'loss'} on {stem.split('/', 1)[1]}"
            found[key] = Metric(key, says, "lower", "retention")
    return found


def _start(runs: Sequence[Trained], metrics: Sequence[str]) -> dict[str, float]:
    """What all runs measured alike before their first step; empty where they started differently."""
    known: dict[str, float] = {}
    for run in runs:
        for key in metrics:
            series = run.series(key)
            if not series or series[0][0] != 0 or series[0][1] is None:
                continue
            value = series[0][1]
            if abs(known.setdefault(key, value) - value) > 1e-4 * max(1.0, abs(value)):
                return {}
    return known
