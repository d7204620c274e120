"""Choosing values: the best mean over the tuning seeds, of trials judged on validation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from onestage.config import nearest
from onestage.studies.cells import Cell, choices
from onestage.studies.claims import require_known
from onestage.studies.file import StudyError, StudyFile, Tune
from onestage.studies.results import FRONT, beside
from onestage.studies.worlds import Metric

OWN = ("eval/", "start/", "retention/", "keep/", "after/", "left/")
"""How the names of metrics begin that runs measure themselves, or that are of a model after a stage."""
TRADED = ("gap/x", "gap/y", "ideal_distance")
"""What trials of a study with a front have, too."""


def require_measured(study: StudyFile, known: Mapping[str, Metric]) -> None:
    """Raise `StudyError` where values would be chosen by what no trial measures, or a claim is of it, or
    by what is not better that way. known: metrics of the world, and of what runs take."""
    require_known(study, [*known, *(FRONT if study.front else ())], OWN)
    if study.tune is None:
        return
    known, tune = {**known, **{one: FRONT[one] for one in TRADED if study.front}}, study.tune
    places: dict[str, tuple[Iterable[str], tuple[str | None, ...]]] = {
        "metric": ([tune.metric], ("higher", "lower")),
        "at_least": (tune.at_least, ("higher",)),
        "at_most": (tune.at_most, ("lower", None)),
    }
    for place, (names, allowed) in places.items():
        for name in names:
            if name not in known and not name.startswith(OWN):
                raise StudyError(
                    f"tune.{place}: {name!r} is not measured{nearest(name, list(known))}; runs measure "
                    f"{'..., '.join(OWN)}..., too"
                )
            better = (known.get(name) or beside(name, known)).better
            if better not in allowed:
                how = f"is better {better}" if better else "is better neither higher nor lower"
                raise StudyError(
                    f"tune.{place}: {name!r} {how}; allowed is what is better "
                    f"{' or '.join(filter(None, allowed))}"
                )


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
    is out, and so is one that does not reach what `tune.at_least` asks or is above `tune.at_most`; a
    method all of whose trials are has no `best`. The first of equals is taken.
    """
    assert study.tune is not None
    metric, sign = study.tune.metric, 1 if better == "higher" else -1
    told: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(cell.method for cell in trials):
        tried: list[dict[str, Any]] = []
        for choice in choices(study, name):
            mine = [c for c in trials if c.method == name and dict(c.choice) == choice]
            means = {
                one: _mean([found.get(c.name, {}).get(one, math.nan) for c in mine])
                for one in (metric, *study.tune.at_least, *study.tune.at_most)
            }
            tried.append({"choice": choice, **means})
        told[name] = {"metric": metric, "trials": tried, "best": None, "edges": []}
    limits = _limits(study.tune, told)
    for name, one in told.items():
        good = [
            trial
            for trial in one["trials"]
            if trial[metric] is not None
            and _reaches(trial, limits)
            and _keeps(trial, study.tune.at_most)
        ]
        if good:
            best = max(good, key=lambda trial: sign * trial[metric])["choice"]
            one |= {"best": best, "edges": edges(study, name, best)}
    return told


def _mean(values: Sequence[float]) -> float | None:
    mean = sum(values) / len(values) if values else math.nan
    return mean if math.isfinite(mean) else None


def _limits(tune: Tune, told: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """What a trial must reach: a share of the best mean that any trial of any method has."""
    limits = {}
    for metric, share in tune.at_least.items():
        means = [trial[metric] for one in told.values() for trial in one["trials"]]
        limits[metric] = share * max((mean for mean in means if mean is not None), default=math.nan)
    return limits


def _reaches(trial: Mapping[str, Any], limits: Mapping[str, float]) -> bool:
    return all(trial[one] is not None and trial[one] >= low for one, low in limits.items())


def _keeps(trial: Mapping[str, Any], limits: Mapping[str, float]) -> bool:
    return all(trial[one] is not None and trial[one] <= high for one, high in limits.items())


def remarks(tune: Tune | None, method: str, told: Mapping[str, Any]) -> list[str]:
    """What is to be said of a choice, in sentences."""
    tried = told["trials"]
    lost = sum(trial[told["metric"]] is None for trial in tried)
    found = []
    if told["best"] is None:
        found.append(f"{method}: no trial has a result{_asked(tune)}, so it is not reported")
    elif lost:
        found.append(
            f"{method}: {lost} of {len(tried)} trials have no {told['metric']} on every tuning seed, "
            "and the choice was among the others"
        )
    if told["edges"]:
        found.append(f"{method}: {', '.join(told['edges'])} chosen at the edge of the grid")
    return found


def _asked(tune: Tune | None) -> str:
    """What a choice must reach and keep, as told where none does."""
    least = f" that reaches {tune.at_least} of the best" if tune and tune.at_least else ""
    most = f" that is at most {tune.at_most}" if tune and tune.at_most else ""
    return " and".join(part for part in (least, most) if part)


def edges(study: StudyFile, method: str, best: Mapping[str, Any]) -> list[str]:
    """Numbers among the chosen values beyond which nothing was tried (where trials are drawn, beyond
    those drawn): the true best may lie there. Below 0, where a grid begins with it, nothing can be
    tried: weights and coefficients end there."""
    found, grid = [], choices(study, method)
    for name, value in best.items():
        values = study.methods[method].try_[name]
        tried = [one for one in values if any(choice[name] == one for choice in grid)]
        numbers = len(tried) > 1 and all(
            isinstance(one, int | float) and not isinstance(one, bool) for one in tried
        )
        if numbers and value in (min(tried), max(tried)) and not value == min(tried) == 0:
            found.append(name)
    return found


def wider(study: StudyFile, told: Mapping[str, Mapping[str, Any]]) -> StudyFile | None:
    """The study with one more value at each edge that a choice lies on; None where none does, or where
    grids may gain no more (`tune.widen`, counted from the study as it is given)."""
    methods = dict(study.methods)
    for name, one in told.items():
        grid = dict(methods[name].try_)
        for variable in one["edges"]:
            if one["best"][variable] in (
                min(grid[variable]),
                max(grid[variable]),
            ):  # not of those drawn
                grid[variable] = _longer(grid[variable], one["best"][variable])
        methods[name] = methods[name].model_copy(update={"try_": grid})
    found = study.model_copy(update={"methods": methods})
    return found if methods != study.methods else None


def _longer(values: Sequence[Any], edge: float) -> list[Any]:
    """One more value beyond the edge, by the ratio of the last two (their difference, where one is not
    above 0). Whole numbers stay whole and above 0, as ranks and layers must; where there is none left,
    the values stay as they are."""
    ordered = sorted(values)
    near = ordered[1] if edge == ordered[0] else ordered[-2]
    positive = edge > 0 and near > 0
    beyond: float = float(f"{edge * edge / near if positive else 2 * edge - near:.6g}")
    if all(isinstance(value, int) for value in values):
        beyond = round(beyond)
        if beyond in values or (positive and beyond < 1):
            return list(values)
    return [beyond, *values] if edge == ordered[0] else [*values, beyond]
