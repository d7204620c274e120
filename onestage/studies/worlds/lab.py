"""The generated world of `onestage lab`: another one for every seed, and exact measurements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from onestage import models
from onestage.runfolder import Say
from onestage.studies.lab.evaluation import METRICS, evaluate
from onestage.studies.lab.ground import make_base, write_rows
from onestage.studies.lab.own import write_own
from onestage.studies.lab.world import LabWorld
from onestage.studies.worlds import Evaluated, Ground, Metric, Split, World


@dataclass(frozen=True)
class Lab(World):
    """Options of `world: {name: lab}`."""

    preset: Literal["small", "large"] = "small"
    """Sizes of world and base model."""
    own: int = Field(default=0, ge=0)
    """Texts that the base itself goes on with, as demonstrations in `own.train.jsonl` (self-generated
    replay)."""
    rater_noise: float = Field(default=0.0, ge=0)
    """Standard deviation of the rater's error, in scores of 0 to 1; training rows only."""

    headline = (
        *("overall", "formats", "formats_new", "truth", "truth_mc2", "refuses", "helps"),
        *("knowledge", "win_rate", "kl_to_base"),
    )

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return METRICS

    def prepare(self, seed: int, cache: Path, say: Say) -> Ground:
        world = self._world(seed)
        base = make_base(world, cache, self.preset, seed=seed, say=say)
        rows = cache.absolute() / "lab" / "rows"
        erring = f"-noise-{self.rater_noise:g}" if self.rater_noise else ""
        data = rows / f"{self.preset}-{seed}{erring}"
        if self.own:
            data = rows / f"{self.preset}-{seed}{erring}-{base.parent.name}-own-{self.own}"
            write_own(base, world, data, self.own, seed=seed, say=say)
        write_rows(world, data)
        return Ground(base, data)

    def evaluate(self, ground: Ground, model: Path, seed: int, split: Split) -> Evaluated:
        trained, base = models.open(model), models.open(ground.base)
        world = self._world(seed)
        found = evaluate(trained.model, base.tokenizer, world, split, base.model)
        return Evaluated(found.metrics, [asdict(answer) for answer in found.answers])

    def _world(self, seed: int) -> LabWorld:
        return LabWorld(seed, self.preset, self.rater_noise)
