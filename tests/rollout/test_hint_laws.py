"""The contract tests: every hint rule of ours passes, and each broken one is told what it breaks."""

from __future__ import annotations

import random as chance
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest

from onestage.rollout import hints
from onestage.rollout.hints import Hint, make, names
from onestage.rollout.hints._laws import laws
from onestage.testing import ContractError, check_hint

State = Mapping[str, float]


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("max_chunks", [1, 5, 12])
def test_ours_keep_the_laws(name: str, max_chunks: int) -> None:
    check_hint(make({"name": name, "max_chunks": max_chunks}))


def test_classes_are_found_by_their_names() -> None:
    assert hints.Cosine is hints.find("cosine")
    assert hints.NoHint is hints.find("none")
    assert {"Adaptive", "NoHint", "Prefix"} <= set(dir(hints))


@dataclass(frozen=True)
class All(Hint):
    """The least that a rule can be."""

    def length(self, step: int, size: int, random: np.random.Generator, state: State) -> int:
        return size


@dataclass(frozen=True)
class TooLong(All):
    def length(self, step: int, size: int, random: np.random.Generator, state: State) -> int:
        return size + 1


@dataclass(frozen=True)
class Fraction(All):
    def length(self, step: int, size: int, random: np.random.Generator, state: State) -> Any:
        return size / 2


@dataclass(frozen=True)
class GivesAfterAll(All):
    gives: ClassVar[bool] = False


@dataclass(frozen=True)
class OwnChance(All):
    def length(self, step: int, size: int, random: np.random.Generator, state: State) -> int:
        return chance.randint(0, size)


@dataclass(frozen=True)
class Remembers(All):
    asked: list[int] = field(default_factory=list)

    def length(self, step: int, size: int, random: np.random.Generator, state: State) -> int:
        self.asked.append(size)
        return min(size, len(self.asked) // 20)


@dataclass(frozen=True)
class WritesInTheState(All):
    def length(self, step: int, size: int, random: np.random.Generator, state: Any) -> int:
        state["asked"] = step
        return size


@dataclass(frozen=True)
class AdvancesInPlace(All):
    def advance(self, state: Any, length: int, size: int, success: float) -> dict[str, float]:
        state["groups"] = state.get("groups", 0) + 1
        return state


@dataclass(frozen=True)
class KeepsAnArray(All):
    def advance(self, state: State, length: int, size: int, success: float) -> Any:
        return {"rate": np.array([success])}


@dataclass(frozen=True)
class AdvancesByChance(All):
    def advance(self, state: State, length: int, size: int, success: float) -> dict[str, float]:
        return {"rate": chance.random()}


@dataclass(frozen=True)
class Raises(All):
    def length(self, step: int, size: int, random: np.random.Generator, state: State) -> int:
        return 10 // size


BROKEN: dict[type[Hint], str] = {
    TooLong: "from 0 to the size",
    Fraction: "whole number",
    GivesAfterAll: "gives none",
    OwnChance: "function of the step, the size, the generator and the state",
    Remembers: "function of the step, the size, the generator and the state",
    WritesInTheState: "leaves the state as it is",
    AdvancesInPlace: "returns a new state",
    KeepsAnArray: "names and numbers",
    AdvancesByChance: "function of its arguments alone",
    Raises: "raises no ZeroDivisionError",
}


def test_the_least_rule_keeps_the_laws() -> None:
    assert laws(All()) == []


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_rule_is_told_what_it_breaks(broken: type[Hint]) -> None:
    with pytest.raises(ContractError, match=f"{broken.__name__} breaks a law: .*{BROKEN[broken]}"):
        check_hint(broken())
