"""Locks of several steps (`studies.lab.lock`): where only the whole right sequence is rewarded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from onestage import models
from onestage.runfolder import Say
from onestage.studies.lab.lock import METRICS, WIDTH, LockWorld, evaluate_lock, write_rows
from onestage.studies.lab.lock_base import make_lock_base
from onestage.studies.worlds import Evaluated, Ground, Metric, Split, World


@dataclass(frozen=True)
class Lock(World):
    """Options of `world: {name: lock}`."""

    horizon: int = Field(default=4, ge=1)
    """Actions that must all be right."""
    solved: int = Field(default=64, ge=0)
    """Training problems that come with a worked solution."""
    places: int = Field(default=WIDTH, ge=1)
    """For cues, in every prompt: the longest horizon."""
    unseen: int = Field(default=0, ge=0)
    """Pairs of neighbouring cues that only the test has, in every problem of it."""

    headline = ("success", "success_sampled", "right_steps")

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return METRICS

    def prepare(self, seed: int, cache: Path, say: Say) -> Ground:
        world = self._world(seed)
        base = make_lock_base(world, cache, say)
        name = f"{self.horizon}-{self.solved}-{seed}"
        if (self.places, self.unseen) != (WIDTH, 0):
            name += f"-{self.places}-{self.unseen}"
        data = cache.absolute() / "lab" / "locks" / name
        write_rows(world, data)
        return Ground(base, data)

    def evaluate(self, ground: Ground, model: Path, seed: int, split: Split) -> Evaluated:
        trained = models.open(model)
        world = self._world(seed)
        return Evaluated(*evaluate_lock(trained.model, trained.tokenizer, world, split))

    def _world(self, seed: int) -> LockWorld:
        return LockWorld(seed, self.horizon, self.solved, self.places, self.unseen)
