"""Where finished runs stand against each other: read from run folders, nothing else.

For every run its last held-out loss of each term, the gap to the best f*, the distance from the ideal
point, and whether another run beats it in one term without losing in another; for all of them together
the hypervolume between their front and the losses at the start.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from onestage.runfolder import read_metrics
from onestage.stats import front, gaps, hypervolume, ideal_distance, normalised

MARK = "eval/terms/"


class StandingError(ValueError):
    """Runs that cannot be compared."""


@dataclass(frozen=True)
class Standing:
    """One run: held-out losses of its terms at the start (if they were measured) and at the end."""

    name: str
    losses: dict[str, float]
    start: dict[str, float]
    given: dict[str, float]
    """f* as the run's recipe has it."""
    step: int = 0
    tokens: int = 0
    problem: str = ""
    """Why there is nothing to compare."""


@dataclass(frozen=True)
class Comparison:
    optimum: dict[str, float]
    start: dict[str, float]
    runs: list[Standing]
    broken: list[Standing]
    gaps: list[dict[str, float]] = field(default_factory=list)
    parts: list[dict[str, float]] = field(default_factory=list)
    """Normalised gaps."""
    best: list[bool] = field(default_factory=list)
    """Whether a run is on the front."""
    volume: float = 0.0

    def distance(self, number: int) -> float:
        return ideal_distance(self.gaps[number])


def read(folder: Path) -> Standing:
    """A run's standing; one with a `problem` where the folder holds no evaluation."""
    name = folder.name
    try:
        recipe = yaml.safe_load((folder / "recipe.yaml").read_text()) or {}
        lines = read_metrics(folder)
    except (OSError, ValueError, yaml.YAMLError) as error:
        return Standing(name, {}, {}, {}, problem=f"cannot be read ({error})")
    evaluated = [line for line in lines if any(key.startswith(MARK) for key in line)]
    if not evaluated:
        return Standing(name, {}, {}, {}, problem="has no evaluation (train.eval_steps)")
    losses = _terms(evaluated[-1])
    if any(value is None for value in losses.values()):
        return Standing(name, {}, {}, {}, problem="ended with losses that are not finite")
    optimum = recipe.get("optimum") or {}
    tokens = [line["tokens"] for line in lines if "tokens" in line]
    return Standing(
        name,
        losses,
        _terms(evaluated[0]) if evaluated[0]["step"] == 0 else {},
        dict(optimum.get("given", {})),
        evaluated[-1]["step"],
        tokens[-1] if tokens else 0,
    )


def _terms(line: Mapping[str, Any]) -> dict[str, Any]:
    return {k.removeprefix(MARK): v for k, v in line.items() if k.startswith(MARK)}


def compare(standings: Sequence[Standing], given: Mapping[str, float]) -> Comparison:
    """`given`: f* by term; else what the runs' recipes say, else the lowest loss of any of the runs.

    Raises `StandingError` where runs have different terms or different given f*.
    """
    runs = [one for one in standings if not one.problem]
    broken = [one for one in standings if one.problem]
    if not runs:
        return Comparison({}, {}, [], broken)
    terms = list(runs[0].losses)
    for one in runs:
        if set(one.losses) != set(terms):
            raise StandingError(
                f"{one.name} has the terms {sorted(one.losses)}, {runs[0].name} {sorted(terms)}; only "
                "runs with the same terms can be compared"
            )
    unknown = sorted(set(given) - set(terms))
    if unknown:
        raise StandingError(f"no run has a term {unknown[0]!r}; the terms are {terms}")
    optimum = {term: _optimum(term, runs, given) for term in terms}
    starts = [one.start for one in runs if one.start]
    start = {term: max(one[term] for one in starts) for term in terms} if starts else {}
    worst = start or {term: max(one.losses[term] for one in runs) for term in terms}
    points = [[one.losses[term] for term in terms] for one in runs]
    on_front = front(points)
    return Comparison(
        optimum,
        start,
        runs,
        broken,
        [gaps(one.losses, optimum) for one in runs],
        [normalised(one.losses, optimum, start) if start else {} for one in runs],
        [number in on_front for number in range(len(runs))],
        hypervolume(points, [worst[term] for term in terms]),
    )


def _optimum(term: str, runs: Sequence[Standing], given: Mapping[str, float]) -> float:
    if term in given:
        return given[term]
    told = {one.given[term] for one in runs if term in one.given}
    if len(told) > 1:
        raise StandingError(
            f"the runs have different f* of {term}: {sorted(told)}; say which with --optimum"
        )
    return told.pop() if told else min(one.losses[term] for one in runs)


def as_json(found: Comparison) -> str:
    """All numbers, for other tools."""
    rows = [
        {
            **{"run": one.name, "step": one.step, "tokens": one.tokens, "losses": one.losses},
            **{"gaps": found.gaps[n], "normalised": found.parts[n]},
            **{"ideal_distance": found.distance(n), "front": found.best[n]},
        }
        for n, one in enumerate(found.runs)
    ]
    content = {"optimum": found.optimum, "start": found.start, "hypervolume": found.volume}
    return json.dumps({**content, "runs": rows}, indent=1)
