"""A training run as it stands in its folder: one run, or stages one after another."""

from __future__ import annotations

import fcntl
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onestage.report.reading import Reader, is_number, mapping
from onestage.runfolder import EVALUATIONS
from onestage.runfolder.following import finished

MARKS = ("metrics.jsonl", "stages.json", "recipe.yaml", "manifest.json")
"""What shows that a folder is a run's."""
KEPT_STEP = "evaluate/kept_step"
Point = tuple[int, float | None]


def up_to_the_kept(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines of a run up to the step of the model that it left: all of them, where that is the last
    one's and `evaluate.best` has kept no other."""
    kept = [line[KEPT_STEP] for line in lines if is_number(line.get(KEPT_STEP))]
    return [line for line in lines if _step(line) <= kept[-1]] if kept else lines


@dataclass(frozen=True)
class Part:
    """A run of its own, or one stage."""

    name: str
    recipe: dict[str, Any]
    text: str
    manifest: dict[str, Any]
    data: dict[str, Any]
    lines: list[dict[str, Any]]
    samples: list[dict[str, Any]]
    before: int
    """Steps of the stages before this one."""
    done: bool
    """Whether it left a model."""
    bounds: list[dict[str, Any]] = field(default_factory=list)
    """What became of the bounds on forgetting."""
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    """What suites found while it went."""

    @property
    def steps(self) -> int:
        return max((_step(line) for line in self.lines), default=0)


@dataclass(frozen=True)
class Trained:
    name: str
    folder: Path
    parts: list[Part]

    @property
    def done(self) -> bool:
        return bool(self.parts) and all(part.done for part in self.parts)

    def measured(self) -> list[str]:
        """Everything that was measured, in the order it first appears."""
        seen = {key: None for part in self.parts for line in part.lines for key in line}
        return [key for key in seen if key != "step"]

    def pieces(self, key: str) -> list[list[Point]]:
        """(step, value) as measured, stage by stage; None where the number was not finite."""
        return [
            [
                (part.before + _step(line), line[key] if is_number(line[key]) else None)
                for line in part.lines
                if key in line
            ]
            for part in self.parts
        ]

    def series(self, key: str) -> list[Point]:
        """The same over all stages."""
        return [point for piece in self.pieces(key) for point in piece]

    def last(self, key: str) -> float | None:
        """As it was of the model that the run left: NaN where it was no number, None where it was never
        measured of that (what an earlier stage measured is of another model)."""
        kept = self._kept_step
        piece = self.pieces(key)[-1] if self.parts else []
        averaged = self.pieces(f"average_{key}")[-1] if self.parts else []
        if kept is None and averaged and piece and averaged[-1][0] == piece[-1][0]:
            piece = averaged  # which is what the run has saved
        told = [value for step, value in piece if kept is None or step <= kept]
        if not told:
            return None
        return math.nan if told[-1] is None else told[-1]

    def of_its_end(self) -> list[dict[str, Any]]:
        """The lines of its last stage, up to the step of the model that it left."""
        return up_to_the_kept(self.parts[-1].lines) if self.parts else []

    @property
    def _kept_step(self) -> int | None:
        """The step of that model, where `evaluate.best` has not kept the last one's."""
        last = self.pieces(KEPT_STEP)[-1] if self.parts else []
        steps = [value for _, value in last if value is not None]
        return int(steps[-1]) + self.parts[-1].before if steps else None

    def suites(self) -> dict[str, dict[str, Any]]:
        """What suites found of the model that the run left, by metric: `suite/NAME/METRIC`.

        Without changes where a later stage was asked: they are against the model that it began from.
        """
        kept, found = self._kept_step, {}
        apart = {"change", "half"} if any(part.evaluations for part in self.parts[1:]) else set()
        for part in self.parts[-1:]:  # an earlier stage's are of another model
            for line in part.evaluations:
                late = kept is not None and part.before + _step(line) > kept
                for name, told in {} if late else mapping(line.get("metrics")).items():
                    known = {k: v for k, v in mapping(told).items() if k not in apart}
                    found[f"suite/{line.get('suite')}/{name}"] = known
        return found

    @property
    def seed(self) -> int:
        for part in self.parts:
            seed = mapping(part.recipe.get("train")).get("seed", part.manifest.get("seed"))
            if isinstance(seed, int):
                return seed
        return 0

    @property
    def tokens(self) -> int:
        return sum(
            max((line["tokens"] for line in part.lines if is_number(line.get("tokens"))), default=0)
            for part in self.parts
        )

    @property
    def seconds(self) -> float | None:
        """Time in training steps, from tokens and their rate; None where neither was logged."""
        total, known = 0.0, False
        for part in self.parts:
            before = 0.0
            for line in part.lines:
                tokens, rate = line.get("tokens"), line.get("tokens_per_second")
                if is_number(tokens) and is_number(rate) and rate:
                    total, known = total + (tokens - before) / rate, True
                    before = tokens
        return total if known else None


def is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in MARKS)


def read_run(folder: Path, name: str, reader: Reader) -> Trained:
    """Read a run folder; what is missing, damaged or unfinished is told to the reader."""
    stages = reader.json(folder / "stages.json", name, kind=list)
    if stages is None:
        return Trained(name, folder, [_part(folder, name, name, 0, reader)])
    parts: list[Part] = []
    before = 0
    for number, stage in enumerate(stages, 1):
        told = mapping(stage)
        title = str(told.get("name", number))
        place = folder / str(told.get("folder", f"{number}-{title}"))
        if place.resolve().parent != folder.resolve() or not place.is_dir():
            reader.tell(name, f"stage {title} has not begun")
            continue
        parts.append(_part(place, title, f"{name}, stage {title}", before, reader))
        before += parts[-1].steps
    return Trained(name, folder, parts)


def _part(folder: Path, name: str, where: str, before: int, reader: Reader) -> Part:
    recipe, text = reader.yaml(folder / "recipe.yaml", where)
    manifest = reader.json(folder / "manifest.json", where) or {}
    data = reader.json(folder / "data.json", where) or {}
    lines = reader.lines(folder / "metrics.jsonl", where, needed=True)
    part = Part(
        name,
        recipe,
        text,
        manifest,
        data,
        lines,
        reader.lines(folder / "samples.jsonl", where),
        before,
        finished(folder),
        [mapping(one) for one in reader.json(folder / "keep.json", where, kind=list) or ()],
        reader.lines(folder / EVALUATIONS, where),
    )
    planned = manifest.get("steps")
    if lines and not part.done:
        of = f" of {planned}" if isinstance(planned, int) else ""
        state = "still running, now" if goes_on(folder) or goes_on(folder.parent) else "interrupted"
        reader.tell(where, f"{state} at step {part.steps}{of}, no model saved")
    return part


def goes_on(folder: Path) -> bool:
    """Whether a run holds the folder, here or on a machine that shares its locks."""
    try:
        with (folder / ".lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no lock, or none that may be looked at
        return False
    return False


def _step(line: dict[str, Any]) -> int:
    step = line.get("step")
    return step if isinstance(step, int) else 0
