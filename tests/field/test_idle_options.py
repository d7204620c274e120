"""Options that would change nothing beside the others: refused by name, and none that has a use."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from torch import Tensor

from onestage import schedules
from onestage.config import require_read
from onestage.objectives import Objective, Scored, make
from onestage.objectives._laws import require_read as objective_read
from onestage.schedules._laws import require_read as schedule_read
from onestage.training.choices import objectives_of, schedule_of

IDLE: dict[str, tuple[dict[str, Any], str]] = {
    "kto": ({"baseline": "mismatched", "decay": 0.5}, "decay .* beside baseline: mismatched;"),
    "tdpo": ({"form": "tdpo1", "alpha": 0.9}, "alpha .* beside form: tdpo1;"),
    "talr": ({"tau": 0.5, "decay": 0.5, "floor": 0.02}, "decay .* beside tau: 0.5;"),
    "uft": (
        {"offset_value": 0.25, "beta": 0.5},
        "offset_value would change nothing as the other options are;",
    ),
    "grpo": ({"kl_estimator": "k1"}, "kl_estimator .* as the other options are;"),
}
USED: dict[str, dict[str, Any]] = {
    "kto": {"baseline": "running", "decay": 0.5},
    "tdpo": {"form": "tdpo2", "alpha": 0.9},
    "talr": {"decay": 0.5},
    "uft": {"offset": "constant", "offset_value": 0.25},
    "grpo": {"beta": 0.1, "kl_estimator": "k1"},
}


@pytest.mark.parametrize("name", IDLE)
def test_an_objectives_option_that_nothing_reads_is_refused(name: str) -> None:
    options, words = IDLE[name]
    with pytest.raises(ValueError, match=f"objective {name}: {words} take it out"):
        objectives_of({"name": name, **options}, [], 64)
    # Of one that was made in Python, too; and what a run fills in was given by nobody.
    with pytest.raises(ValueError, match=words):
        objective_read(make({"name": name, **options}), name)
    objectives_of({"name": name, **USED[name]}, [], 64)


def test_a_schedules_option_that_nothing_reads_is_refused() -> None:
    given = {"name": "maxright", "decide": "same_batch", "refresh_part": 0.5}
    with pytest.raises(ValueError, match=r"refresh_part .* beside decide: same_batch; take it out"):
        schedule_of(given)
    schedule_of(given | {"decide": "independent"})
    schedule_of({"name": "chord", "peak": 0.8, "decay_steps": 7})
    schedule_read(schedules.make({"name": "gac", "cap": 0.5, "prior": 0.25}), "gac")


@dataclass(frozen=True, slots=True)
class Slotted:
    way: str = "long"
    length: float = 1.0
    names: list[str] = field(default_factory=list)

    def go(self) -> float:
        return self.length if self.way == "long" else 0.0


@dataclass(frozen=True)
class Looks:
    """Reads all of its options at once: of none can it be said that nothing reads it."""

    length: float = 1.0

    def go(self) -> float:
        return len(vars(self))


def test_a_strangers_class_is_watched_or_left_alone() -> None:
    require_read("way", Slotted(length=2.0), Slotted.go)
    with pytest.raises(ValueError, match="way: length would change nothing beside way: short"):
        require_read("way", Slotted("short", 2.0), Slotted.go)
    with pytest.raises(ValueError, match="way: names would change nothing as the other"):
        require_read("way", Slotted(names=["a"]), Slotted.go)
    require_read("look", Looks(2.0), Looks.go)
    require_read("fail", Slotted("short", 2.0), lambda one: 1 / 0)


@dataclass(frozen=True)
class Told(Objective):
    """Its loss knows no scale; the implicit rewards that are logged do."""

    unit = "token"
    kinds = frozenset({"demonstration"})

    beta: float = 0.0

    def losses(self, batch: Scored) -> Tensor:
        return -batch.logp_K


def test_a_scale_of_implicit_rewards_is_read_by_what_is_logged() -> None:
    objective_read(Told(beta=0.5), "told")


@dataclass(frozen=True)
class Strict:
    """Its options go together; it says so in an error of its own."""

    way: str = "long"
    length: float = 1.0

    def __post_init__(self) -> None:
        if (self.way == "long") != (self.length == 1.0):
            raise TypeError("short ones have a length")

    def go(self) -> str:
        return self.way


def test_what_a_stranger_raises_over_a_default_is_no_traceback() -> None:
    with pytest.raises(ValueError, match="way strict: length would change nothing"):
        require_read("way strict", Strict("short", 2.0), Strict.go)
