"""What `onestage evaluate` found of runs' models: on all items, of which a run under way asks a few.

`evaluation.json` is looked for where the command leaves it: in the run's folder or its last stage's, and
of several runs that were measured together in that of one of them, or beside them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onestage.report.cells import Metric
from onestage.report.reading import Reader, is_number, mapping
from onestage.report.trained import Trained

PLACES = ("evaluation/evaluation.json", "evaluation.json")


@dataclass(frozen=True)
class Number:
    """One metric of a model."""

    value: float
    before: float | None
    """Of its base."""
    half: float | None
    """Half the width of the interval of the change, paired by item."""


@dataclass
class Benchmarks:
    """The numbers of some runs' models."""

    metrics: dict[str, Metric] = field(default_factory=dict)
    """Headlines of suites first."""
    numbers: dict[str, dict[str, Number]] = field(default_factory=dict)
    """By run and metric."""
    suites: dict[str, set[str]] = field(default_factory=dict)
    """By run, those whose numbers there are."""
    headlines: list[str] = field(default_factory=list)

    @property
    def start(self) -> dict[str, float]:
        """What the runs' common base has; without what their bases do not share."""
        found: dict[str, float] = {}
        for name in self.metrics:
            known = [one[name].before for one in self.numbers.values() if name in one]
            values = [value for value in known if value is not None]
            if values and max(values) - min(values) <= 1e-4 * max(1.0, abs(values[0])):
                found[name] = values[0]
        return found

    @property
    def certain(self) -> dict[str, dict[str, float]]:
        return {
            run: {name: n.half for name, n in one.items() if n.half is not None}
            for run, one in self.numbers.items()
        }


def evaluation_file(folder: Path) -> Path | None:
    """Where a folder's evaluation lies, if it has one."""
    # Of a run in stages, model/ is a link to that of the last, and the command goes by where it leads.
    places = (folder, (folder / "model").resolve().parent)
    found = (place / one for place in places for one in PLACES)
    return next((file for file in found if file.is_file()), None)


def models_in(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    listed = content.get("models")
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []


def benchmarks(runs: Sequence[Trained], reader: Reader) -> Benchmarks:
    """Of each run, the numbers of the model that it left, else of the last that was measured of those
    in its folder (`model_last`, a stage's, a checkpoint's); of suites without their details."""
    found, others = Benchmarks(), dict[str, Metric]()
    for run in runs:
        for _, content, model in sorted(_measured(run, runs, reader), key=lambda one: one[0]):
            _add(found, others, run.name, content, model, reader)
    found.headlines = [*found.metrics]
    found.metrics |= {name: one for name, one in others.items() if name not in found.metrics}
    return found


def _measured(
    run: Trained, runs: Sequence[Trained], reader: Reader
) -> Iterator[tuple[bool, dict[str, Any], dict[str, Any]]]:
    """Models of a run, in files of its own after those of others: whether it is the one that the run
    left, what its file says, and what that says of it."""
    mine = [*filter(None, map(evaluation_file, (run.folder.parent, run.folder)))]
    files = dict.fromkeys([*filter(None, (evaluation_file(one.folder) for one in runs))])
    for file in [*(one for one in files if one not in mine), *mine]:
        # A damaged file is told by whom it belongs to.
        content = (reader if file in mine else Reader()).json(file, run.name) or {}
        for model in models_in(content):
            name = str(model.get("name"))
            if inside(Path(name), run.folder):
                place: Path | None = Path(name)
            elif file in mine and not any(inside(Path(name), one.folder) for one in runs):
                place = place_in(name, run.folder)
            else:
                place = None
            if place is not None and place.is_dir() and fresh(file, place, run.name, reader):
                yield place.resolve() == (run.folder / "model").resolve(), content, model


def inside(place: Path, folder: Path) -> bool:
    return place.resolve().is_relative_to(folder.resolve())


def place_in(name: str, folder: Path) -> Path | None:
    """Where a model lies, if it is in a run's folder, which may have moved with it since."""
    parts, own = Path(name).parts, folder.resolve().name
    tails = [parts[at + 1 :] for at, part in enumerate(parts[:-1]) if part == own]
    return next((place for tail in tails if (place := folder / Path(*tail)).is_dir()), None)


def fresh(file: Path, model: Path, where: str, reader: Reader) -> bool:
    """Whether a model is not younger than its numbers."""
    written = max((one.stat().st_mtime for one in model.glob("*.safetensors")), default=0.0)
    if file.stat().st_mtime >= written:
        return True
    reader.tell(where, f"{file.name} is older than the model: left out (onestage evaluate again)")
    return False


def _add(
    found: Benchmarks,
    others: dict[str, Metric],
    run: str,
    content: Mapping[str, Any],
    model: Mapping[str, Any],
    reader: Reader,
) -> None:
    for label, told in mapping(model.get("suites")).items():
        headline = mapping(mapping(content.get("suites")).get(label)).get("headline")
        for metric, numbers in mapping(mapping(told).get("metrics")).items():
            number = _number(mapping(numbers))
            if "/" in metric:
                continue
            if number is None:
                reader.tell(run, f"suite {label}: {metric} is no number, and is left out")
                continue
            said = metric.replace("_", " ")
            name = f"{label} {said}"
            better = "lower" if mapping(numbers).get("lower_is_better") else "higher"
            into = found.metrics if metric == headline else others
            into[name] = Metric(name, f"suite {label}: {said}", better, "suites")
            found.numbers.setdefault(run, {})[name] = number
            found.suites.setdefault(run, set()).add(label)


def _number(told: Mapping[str, Any]) -> Number | None:
    value, apart = told.get("value"), mapping(told.get("difference"))
    if not is_number(value):
        return None
    change, high = apart.get("value"), apart.get("high")
    if not is_number(change):
        return Number(value, None, None)
    return Number(value, value - change, high - change if is_number(high) else None)
