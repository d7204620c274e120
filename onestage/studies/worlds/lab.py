"""The generated world of `onestage lab`: another one for every seed, and exact measurements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from onestage import models
from onestage.runfolder import Say
from onestage.studies.lab.evaluation import METRICS, evaluate
from onestage.studies.lab.ground import make_base, write_rows
from onestage.studies.lab.own import write_own
from onestage.studies.lab.tried import write_tried
from onestage.studies.lab.world import LabWorld
from onestage.studies.worlds import Evaluated, Ground, Metric, Split, World

FIRST = {"small": (8, 12), "large": (48, 64)}
"""Things of either sort that the first exam asked for, in a validation and in a test."""


@dataclass(frozen=True)
class Lab(World):
    """Options of `world: {name: lab}`."""

    preset: Literal["small", "large"] = "small"
    """Sizes of world and base model."""
    own: int = Field(default=0, ge=0)
    """Texts that the base itself goes on with, as demonstrations in `own.train.jsonl` (self-generated
    replay)."""
    tried: int = Field(default=0, ge=0)
    """Answers of the base itself to each problem: of those that it sometimes solves
    (`solved.train.jsonl`) its right ones in `right.train.jsonl`, others' in `given.train.jsonl`; of
    held-out problems whatever it says in `said.validation.jsonl` and `said.test.jsonl`."""
    rater_noise: float = Field(default=0.0, ge=0)
    """Standard deviation of the rater's error, in scores of 0 to 1; training rows only."""

    exam: ClassVar[int] = 2  # things are asked for nine times, and not once

    headline = (
        *("overall", "formats", "formats_new", "truth", "truth_mc2", "refuses", "helps"),
        *("knowledge", "win_rate", "kl_to_base"),
    )

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return METRICS

    def examined(self, found: Mapping[str, float]) -> int:
        """The first had so few things that a share of them is a multiple of one of so many; of a cell
        that refuses or helps always or never nobody can tell, and it counts as one of the first."""
        shares = [found[name] for name in ("refuses", "helps") if name in found]
        few = (
            any(abs(share * n - round(share * n)) < 1e-9 for n in FIRST[self.preset])
            for share in shares
        )
        return 1 if all(few) else 2

    def prepare(self, seed: int, cache: Path, say: Say) -> Ground:
        world = self._world(seed)
        base = make_base(world, cache, self.preset, seed=seed, say=say)
        rows = cache.absolute() / "lab" / "rows"
        erring = f"-noise-{self.rater_noise:g}" if self.rater_noise else ""
        data = rows / f"{self.preset}-{seed}{erring}{self._said(base)}"
        if self.own:
            write_own(base, world, data, self.own, seed=seed, say=say)
        if self.tried:
            write_tried(base, world, data, self.tried, seed=seed, say=say)
        write_rows(world, data)
        return Ground(base, data)

    def evaluate(self, ground: Ground, model: Path, seed: int, split: Split) -> Evaluated:
        trained, base = models.open(model), models.open(ground.base)
        world = self._world(seed)
        found = evaluate(trained.model, base.tokenizer, world, split, base.model)
        return Evaluated(found.metrics, [asdict(answer) for answer in found.answers])

    def _said(self, base: Path) -> str:
        """What the name of the rows' folder says of rows that the base itself has drawn."""
        own = f"-own-{self.own}" if self.own else ""
        own += f"-tried-{self.tried}" if self.tried else ""
        return f"-{base.parent.name}{own}" if own else ""

    def _world(self, seed: int) -> LabWorld:
        return LabWorld(seed, self.preset, self.rater_noise)
