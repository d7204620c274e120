"""The contract tests: every schedule of ours passes, and each broken one is told what it breaks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from onestage import schedules
from onestage.schedules import OWN, Maxright, Measure, Schedule, Slopes, make, names
from onestage.schedules._laws import laws
from onestage.testing import ContractError, check_schedule

GIVEN: dict[str, dict[str, Any]] = {
    name: {"weights": {"dpo": 1, "sft": 2}} for name in ("chord", "gac")
}


@pytest.mark.parametrize("name", names())
def test_ours_keep_the_laws(name: str) -> None:
    check_schedule(make({"name": name, **GIVEN.get(name, {})}))


@pytest.mark.parametrize("decide", ["ema", "independent", "same_batch"])
@pytest.mark.parametrize("refresh_steps", [1, 4])
def test_maxright_keeps_them_however_it_decides(decide: Any, refresh_steps: int) -> None:
    check_schedule(Maxright({"a": 1, "b": 2}, decide=decide, refresh_steps=refresh_steps))


def test_classes_are_found_by_their_names() -> None:
    assert schedules.Maxright is schedules.find("maxright")
    assert schedules.SmoothMaxright is schedules.find("smooth_maxright")
    assert {"Alright", "Mix", "SmoothMaxright"} <= set(dir(schedules))
    with pytest.raises(AttributeError, match="has no attribute 'Maxleft'"):
        schedules.__getattr__("Maxleft")


def test_a_run_takes_a_copy_of_what_a_user_made() -> None:
    mine = Maxright(weights={"dpo": 1, "sft": 3}, refresh_steps=4)
    run = mine.for_run(mine.weights, 10, seed=5, optimum={"sft": 0.5})
    run.observe(0, {"dpo": 1.0, "sft": 2.0})
    assert (run.steps, run.seed, run.refresh_steps) == (10, 5, 4)
    assert run.share == {"dpo": 0.25, "sft": 0.75}
    assert run.best == {"dpo": 0.0, "sft": 0.5}
    assert (mine.steps, mine.values, mine.best["sft"]) == (0, {}, 0.0)


@dataclass
class Halves(Schedule):
    """The least that a schedule can be."""

    def weigh(self, step: int) -> dict[str, float]:
        return self.share


@dataclass
class LeavesOneOut(Halves):
    def weigh(self, step: int) -> dict[str, float]:
        return {"first": 1.0}


@dataclass
class GoesBelowZero(Halves):
    def weigh(self, step: int) -> dict[str, float]:
        return dict.fromkeys(self.weights, -1.0)


@dataclass
class TakesLossesAsTheyAre(Halves):
    last: float = field(default=1.0, init=False)
    measure: Measure = field(default="own_batch", init=False)

    def wants(self, step: int) -> Sequence[str]:
        return list(self.weights)[:1]

    def observe(self, step: int, losses: Mapping[str, float]) -> None:
        self.last = min(losses.values(), default=self.last)

    def weigh(self, step: int) -> dict[str, float]:
        return self.share | {"first": self.last}

    def state(self) -> dict[str, Any]:
        return {"last": self.last if math.isfinite(self.last) else None}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.last = state["last"]


@dataclass
class TrainsOnEverything(Halves):
    def weigh(self, step: int) -> dict[str, float]:
        return dict.fromkeys(self.weights, 1.0)


@dataclass
class WantsAStranger(Halves):
    def wants(self, step: int) -> Sequence[str]:
        return ["somebody"]


@dataclass
class WantsTooOften(Halves):
    measure: Measure = field(default="own_batch", init=False)
    measure_every: int = field(default=3, init=False)

    def wants(self, step: int) -> Sequence[str]:
        return ["first"] if step % 2 == 0 else []


@dataclass
class CountsItsCalls(Halves):
    calls: int = field(default=0, init=False)

    def weigh(self, step: int) -> dict[str, float]:
        self.calls += 1
        return {"first": 1.0, "second": float(self.calls), "never": 0.0}


@dataclass
class Forgets(Halves):
    seen: int = field(default=0, init=False)

    def observe(self, step: int, losses: Mapping[str, float]) -> None:
        self.seen += len(losses)

    def weigh(self, step: int) -> dict[str, float]:
        return {"first": 1.0, "second": float(self.seen), "never": 0.0}


@dataclass
class KeepsASet(Halves):
    def state(self) -> dict[str, Any]:
        return {"seen": {1, 2}}


@dataclass
class Raises(Halves):
    def weigh(self, step: int) -> dict[str, float]:
        return {"sft": self.weights["sft"]}


@dataclass
class ThinksInTensors(Halves):
    def weigh(self, step: int) -> dict[str, float]:
        total = torch.tensor(list(self.weights.values())).sum().item()
        return {term: w / total for term, w in self.weights.items()}


@dataclass
class Combines(Halves):
    combines: str = field(default=OWN, init=False)

    def combine(self, slopes: Slopes) -> dict[str, float]:
        return dict.fromkeys(slopes.inner, 1.0)


@dataclass
class GoesUphill(Combines):
    def combine(self, slopes: Slopes) -> dict[str, float]:
        return dict.fromkeys(slopes.inner, -1.0)


@dataclass
class CombinesOne(Combines):
    def combine(self, slopes: Slopes) -> dict[str, float]:
        return {"first": 1.0}


@dataclass
class DividesByWhatIsLeft(Combines):
    """Of opposed gradients nothing is."""

    def combine(self, slopes: Slopes) -> dict[str, float]:
        left = math.fsum(x for row in slopes.inner.values() for x in row.values())
        return dict.fromkeys(slopes.inner, 1 / left if left > 1e-300 else math.inf)


@dataclass
class CombinesAnew(Combines):
    calls: int = field(default=0, init=False)

    def combine(self, slopes: Slopes) -> dict[str, float]:
        self.calls += 1
        return dict.fromkeys(slopes.inner, float(self.calls))

    def state(self) -> dict[str, Any]:
        return {"calls": self.calls}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.calls = state["calls"]


@dataclass
class KnowsNoRule(Halves):
    combines: str = field(default="steepest", init=False)


@dataclass
class FeelsInSilence(Halves):
    felt: float = field(default=1.0, init=False)

    def feel(self, step: int, slopes: Slopes) -> None:
        self.felt = 1.0 + sum(slopes.noise.values())

    def weigh(self, step: int) -> dict[str, float]:
        return {"first": 1.0, "second": self.felt, "never": 0.0}

    def state(self) -> dict[str, Any]:
        return {"felt": self.felt}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.felt = state["felt"]


@dataclass
class ForgetsWhatItFelt(FeelsInSilence):
    feels: bool = field(default=True, init=False)

    def restore(self, state: Mapping[str, Any]) -> None:
        pass


BROKEN: dict[type[Schedule], str] = {
    LeavesOneOut: "a weight to every term",
    GoesBelowZero: "not negative",
    TakesLossesAsTheyAre: "finite numbers",
    TrainsOnEverything: "whose weight is 0 is not trained on",
    WantsAStranger: "names terms of the run",
    WantsTooOften: "at most once in `measure_every` steps",
    CountsItsCalls: "the same answer until something is observed",
    Forgets: "stopped and restored goes on",
    KeepsASet: "plain data",
    Raises: "raises no KeyError",
    ThinksInTensors: "uses no torch",
    GoesUphill: "where all gradients agree",
    CombinesOne: "a factor to every term",
    DividesByWhatIsLeft: "gradients that are opposed are finite",
    CombinesAnew: "`combine` gives the same answer",
    KnowsNoRule: "`combines` is one of",
    FeelsInSilence: "says so",
    ForgetsWhatItFelt: "stopped and restored goes on",
}


def test_the_least_schedule_keeps_the_laws() -> None:
    assert laws(Halves()) == []
    assert laws(Combines()) == []


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_schedule_is_told_what_it_breaks(broken: type[Schedule]) -> None:
    with pytest.raises(ContractError, match=f"{broken.__name__} breaks a law: .*{BROKEN[broken]}"):
        check_schedule(broken())


def test_a_schedule_that_wants_losses_says_where_they_are_measured() -> None:
    assert "a schedule that wants losses says on which records (`measure`)" in laws(
        WantsAStranger()
    )
