"""What `onestage evaluate` found of runs' models: on all items, of which a run under way asks a few.

`evaluation.json` is looked for where the command leaves it: in the run's folder, or, of several runs
that were measured together, beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    suites: set[str] = field(default_factory=set)
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
    return next((folder / one for one in PLACES if (folder / one).is_file()), None)


def models_in(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    listed = content.get("models")
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []


def benchmarks(runs: Sequence[Trained], reader: Reader) -> Benchmarks:
    """Of each run, the numbers of the model that it left, else of the last that was measured of those
    in its folder (`model_last`, a stage's, a checkpoint's); of suites without their details."""
    found, others = Benchmarks(), dict[str, Metric]()
    for run in runs:
        known: list[tuple[bool, dict[str, Any], dict[str, Any]]] = []
        for file in filter(None, map(evaluation_file, (run.folder.parent, run.folder))):
            content = reader.json(file, run.name) or {}
            for model in models_in(content):
                place = place_in(str(model.get("name")), run.folder)
                if place is not None and fresh(file, place, run.name, reader):
                    left = place.resolve() == (run.folder / "model").resolve()
                    known.append((left, content, model))
        for _, content, model in sorted(known, key=lambda one: one[0]):
            _add(found, others, run.name, content, model)
    found.headlines = [*found.metrics]
    found.metrics |= {name: one for name, one in others.items() if name not in found.metrics}
    return found


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
) -> None:
    for label, told in mapping(model.get("suites")).items():
        headline = mapping(mapping(content.get("suites")).get(label)).get("headline")
        for metric, numbers in mapping(mapping(told).get("metrics")).items():
            number = _number(mapping(numbers))
            if "/" in metric or number is None:
                continue
            said = metric.replace("_", " ")
            name = f"{label} {said}"
            better = "lower" if mapping(numbers).get("lower_is_better") else "higher"
            into = found.metrics if metric == headline else others
            into[name] = Metric(name, f"suite {label}: {said}", better, "suites")
            found.numbers.setdefault(run, {})[name] = number
            found.suites.add(label)


def _number(told: Mapping[str, Any]) -> Number | None:
    value, apart = told.get("value"), mapping(told.get("difference"))
    if not is_number(value):
        return None
    change, high = apart.get("value"), apart.get("high")
    if not is_number(change):
        return Number(value, None, None)
    return Number(value, value - change, high - change if is_number(high) else None)
