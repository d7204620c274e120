"""One model judged as a study would, beside the base of the same ground."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onestage import models
from onestage.runfolder import Say, default_cache, silent
from onestage.studies.worlds import PLUGINS, Evaluated, Metric, Split


@dataclass(frozen=True)
class Judged:
    """What a world finds of a model, and of the base that its data are for."""

    model: Evaluated
    base: Evaluated
    metrics: Mapping[str, Metric]
    """What the numbers say, in the order to show them."""

    @property
    def change(self) -> dict[str, float]:
        """What was gained on the base (above 0 where higher is better), and what was forgotten."""
        before = self.base.metrics
        return {name: value - before[name] for name, value in self.model.metrics.items()}


def evaluate(
    model: str | Path,
    world: str | Mapping[str, Any] = "lab",
    *,
    seed: int = 0,
    split: Split = "test",
    cache: Path | None = None,
    say: Say = silent,
) -> Judged:
    """Measure a model or adapter folder in a world: a name, or a table of it and its options.

    seed: of the world; cache: where base models are kept. Raises `ValueError` for a world that cannot
    be, and for what is no model, before anything is made.
    """
    place = PLUGINS.make(world)
    place.check()
    models.config_of(models.Model(name=str(model)))  # fails here, and not when the ground is laid
    ground = place.prepare(seed, cache or default_cache(), say)
    found = place.evaluate(ground, Path(model), seed, split)
    return Judged(found, place.evaluate(ground, ground.base, seed, split), place.metrics)
