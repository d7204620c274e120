"""Hints for what stays unsolved: one problem's history by hand, and runs that keep one for each."""

from __future__ import annotations

import numpy as np
import pytest

from onestage.rollout.hints import make
from onestage.rollout.hints.scaffold import Scaffold
from onestage.testing import check_hint

RANDOM = np.random.default_rng(0)


def told(rule: Scaffold, successes: list[float], size: int = 3, step: int = 0) -> list[int]:
    """Lengths of the hints at some visits, and at the one after them."""
    state: dict[str, float] = {}
    lengths = []
    for number, success in enumerate(successes):
        lengths.append(rule.length(step + number, size, RANDOM, state))
        state = rule.advance(state, lengths[-1], size, success)
    return [*lengths, rule.length(step + len(successes), size, RANDOM, state)]


def test_one_more_chunk_after_each_failure_and_one_fewer_after_each_success() -> None:
    rule = Scaffold(free_steps=0)
    assert told(rule, [0, 0, 0.25, 0.5, 0]) == [0, 1, 2, 1, 0, 1]


def test_never_more_than_the_solution() -> None:
    assert told(Scaffold(free_steps=0), [0] * 5, size=2) == [0, 1, 2, 2, 2, 2]
    assert told(Scaffold(free_steps=0), [0] * 3 + [1.0], size=2) == [0, 1, 2, 2, 1]
    assert told(Scaffold(free_steps=0), [0, 0], size=0) == [0, 0, 0]
    assert told(Scaffold(free_steps=0, max_chunks=1), [0, 0], size=1) == [0, 1, 1]


def test_patience_counts_failures_in_a_row() -> None:
    assert told(Scaffold(free_steps=0, patience=2), [0, 0.1, 0, 0, 0]) == [0, 0, 0, 0, 1, 2]


def test_free_steps_give_none_and_are_remembered_as_one_failure() -> None:
    assert told(Scaffold(free_steps=4), [0] * 5) == [0, 0, 0, 0, 1, 2]


def test_what_was_solved_leaves_no_state() -> None:
    rule = Scaffold()
    assert rule.advance({}, 0, 3, 1.0) == {}
    assert rule.advance({"failed": 1.0}, 1, 3, 1.0) == {}


def test_laws_and_options() -> None:
    check_hint(Scaffold(free_steps=0, patience=2))
    assert make("scaffold").per == "problem"
    with pytest.raises(ValueError, match="patience of at least 1"):
        Scaffold(patience=0)
