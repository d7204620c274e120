"""Choosing values: the best mean over the tuning seeds, of trials judged on validation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from onestage.studies.cells import Cell, choices
from onestage.studies.file import StudyFile


def settled(study: StudyFile) -> dict[str, dict[str, Any]]:
    """Methods that have nothing to choose among, and their values."""
    grids = {name: choices(study, name) for name in study.methods}
    return {name: grid[0] for name, grid in grids.items() if len(grid) == 1}


def choose(
    study: StudyFile,
    trials: Sequence[Cell],
    found: Mapping[str, Mapping[str, float]],
    better: Literal["higher", "lower"],
) -> dict[str, dict[str, Any]]:
    """For every tuned method what `tuning.json` says: its trials, the `best`, and edges of its grid.

    `found`: metrics by the name of a cell. A trial that failed on a seed, or whose metric is no number,
    is out; a method all of whose trials are has no `best`. The first of equals is taken.
    """
    assert study.tune is not None
    metric, sign = study.tune.metric, 1 if better == "higher" else -1
    told: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(cell.method for cell in trials):
        tried: list[dict[str, Any]] = []
        for choice in choices(study, name):
            mine = [c for c in trials if c.method == name and dict(c.choice) == choice]
            values = [found.get(c.name, {}).get(metric, math.nan) for c in mine]
            mean = sum(values) / len(values) if values else math.nan
            tried.append({"choice": choice, metric: mean if math.isfinite(mean) else None})
        good = [one for one in tried if one[metric] is not None]
        told[name] = {"metric": metric, "trials": tried, "best": None, "edges": []}
        if good:
            best = max(good, key=lambda one: sign * one[metric])["choice"]
            told[name] |= {"best": best, "edges": edges(study, name, best)}
    return told


def edges(study: StudyFile, method: str, best: Mapping[str, Any]) -> list[str]:
    """Numbers among the chosen values beyond which nothing was tried: the true best may lie there."""
    found = []
    for name, value in best.items():
        tried = study.methods[method].try_[name]
        numbers = len(tried) > 1 and all(isinstance(one, int | float) for one in tried)
        if numbers and value in (min(tried), max(tried)):
            found.append(name)
    return found
