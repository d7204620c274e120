"""What finished runs trade away against each other; `onestage front` prints it, the page shows it.

Of every run the last held-out loss of each term, of the model that it left, read from its folder; among
all of them the gaps to the best f*, the distance from the ideal point, and whether another run beats it
in one term without losing in another. For all together the hypervolume between their front and the
losses at the start.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from onestage.report.trained import up_to_the_kept
from onestage.runfolder import json_lines
from onestage.stats import front, gaps, hypervolume, ideal_distance, normalised

MARK = "eval/terms/"


class FrontError(ValueError):
    """Runs that cannot be compared."""


@dataclass(frozen=True)
class RunResult:
    """What a run reached: held-out losses of its terms at the start (if measured) and at the end."""

    name: str
    losses: Mapping[str, float]
    start: Mapping[str, float]
    given: Mapping[str, float]
    """f* as the run's recipe has it."""
    step: int = 0
    tokens: int = 0
    problem: str = ""
    """Why there is nothing to compare."""


@dataclass(frozen=True)
class Placed:
    """A run among the others."""

    run: RunResult
    gaps: Mapping[str, float]
    normalised: Mapping[str, float]
    """Gaps as parts of the start's; empty where the start was not measured."""
    on_front: bool

    @property
    def distance(self) -> float:
        """From the point where every term is at its best."""
        return ideal_distance(self.gaps)

    @property
    def label(self) -> str:
        """Its name, with a star for the front."""
        return self.run.name + (" *" if self.on_front else "")

    def describe(self) -> dict[str, Any]:
        """As `as_json` has it."""
        return {
            **{"run": self.run.name, "step": self.run.step, "tokens": self.run.tokens},
            **{"losses": self.run.losses, "gaps": self.gaps, "normalised": self.normalised},
            **{"ideal_distance": self.distance, "front": self.on_front},
        }


@dataclass(frozen=True)
class Comparison:
    """Runs with the same terms, as they were given, and what they have in common."""

    optimum: Mapping[str, float]
    start: Mapping[str, float]
    """The highest loss of each term at the start; empty where no run measured it."""
    runs: list[Placed]
    broken: list[RunResult]
    volume: float = 0.0

    def nearest_first(self) -> list[Placed]:
        """The runs by their distance from the ideal point."""
        return sorted(self.runs, key=lambda one: one.distance)


def result_of(folder: Path) -> RunResult:
    """What a run reached; with a `problem` where the folder holds no evaluation."""
    try:
        recipe = yaml.safe_load((folder / "recipe.yaml").read_text()) or {}
        lines, damaged = json_lines(folder / "metrics.jsonl")
    except FileNotFoundError as error:
        return _broken(folder, f"cannot be read ({Path(str(error.filename)).name} is missing)")
    except (OSError, ValueError, yaml.YAMLError) as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)
        return _broken(folder, f"cannot be read ({said})")
    if damaged:  # an evaluation before them is of another step
        return _broken(folder, f"has damaged metrics ({damaged} of its lines), maybe its last")
    evaluated = _evaluated(lines)
    if not evaluated:
        return _broken(folder, "has no evaluation (train.eval_steps)")
    first, last = evaluated[0], _of_the_model(evaluated, lines)
    losses = _terms(last)
    if any(value is None for value in losses.values()):
        return _broken(folder, "ended with losses that are not finite")
    start = _terms(first) if first["step"] == 0 else {}
    given = (recipe.get("optimum") or {}).get("given", {})
    tokens = [line["tokens"] for line in lines if "tokens" in line]
    return RunResult(folder.name, losses, start, given, last["step"], tokens[-1] if tokens else 0)


def _broken(folder: Path, problem: str) -> RunResult:
    return RunResult(folder.name, {}, {}, {}, problem=problem)


def _evaluated(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if any(key.startswith(MARK) for key in line)]


def _of_the_model(
    evaluated: list[dict[str, Any]], lines: list[dict[str, Any]]
) -> Mapping[str, Any]:
    """The last evaluation of the model that the run left: of the best, where that is what it keeps, and
    of the average, where that is."""
    # One before the best is what is known of it; the first is there at the latest.
    last = [*evaluated[:1], *_evaluated(up_to_the_kept(lines))][-1]
    mark = f"average_{MARK}"
    averaged = {k.removeprefix("average_"): v for k, v in last.items() if k.startswith(mark)}
    return {**last, **averaged}


def _terms(line: Mapping[str, Any]) -> dict[str, Any]:
    return {k.removeprefix(MARK): v for k, v in line.items() if k.startswith(MARK)}


def compare(results: Sequence[RunResult], given: Mapping[str, float]) -> Comparison:
    """`given`: f* by term; else what the runs' recipes say, else the lowest loss of any of the runs.

    Raises `FrontError` where runs have different terms or different given f*.
    """
    runs = [one for one in results if not one.problem]
    broken = [one for one in results if one.problem]
    if not runs:
        return Comparison({}, {}, [], broken)
    terms = _same_terms(runs, given)
    optimum = {term: _optimum(term, runs, given) for term in terms}
    starts = [one.start for one in runs if one.start]
    start = {term: max(one[term] for one in starts) for term in terms} if starts else {}
    # A volume needs a worst point. Without a start it is the worst of these runs, so that it can be
    # compared within this table alone.
    worst = start or {term: max(one.losses[term] for one in runs) for term in terms}
    points = [[one.losses[term] for term in terms] for one in runs]
    best = front(points)
    placed = [
        Placed(
            one,
            gaps(one.losses, optimum),
            normalised(one.losses, optimum, start) if start else {},
            number in best,
        )
        for number, one in enumerate(runs)
    ]
    volume = hypervolume(points, [worst[term] for term in terms])
    return Comparison(optimum, start, placed, broken, volume)


def _same_terms(runs: Sequence[RunResult], given: Mapping[str, float]) -> list[str]:
    """The terms of all runs; raises `FrontError` where they differ, or f* is given for another."""
    terms = list(runs[0].losses)
    for one in runs:
        if set(one.losses) != set(terms):
            raise FrontError(
                f"{one.name} has the terms {sorted(one.losses)}, {runs[0].name} {sorted(terms)}; only "
                "runs with the same terms can be compared"
            )
    unknown = sorted(set(given) - set(terms))
    if unknown:
        raise FrontError(f"no run has a term {unknown[0]!r}; the terms are {terms}")
    return terms


def _optimum(term: str, runs: Sequence[RunResult], given: Mapping[str, float]) -> float:
    if term in given:
        return given[term]
    told = {one.given[term] for one in runs if term in one.given}
    if len(told) > 1:
        raise FrontError(
            f"the runs have different f* of {term}: {sorted(told)}; say which with --optimum"
        )
    return told.pop() if told else min(one.losses[term] for one in runs)


def as_json(found: Comparison) -> str:
    """All numbers, for other tools."""
    content = {"optimum": found.optimum, "start": found.start, "hypervolume": found.volume}
    return json.dumps({**content, "runs": [one.describe() for one in found.runs]}, indent=1)
