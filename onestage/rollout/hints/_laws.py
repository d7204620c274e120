"""What every hint rule must keep, tried out on one: ours and other people's.

A resumed run must give the hints that it would have given, whatever was asked in between. So a rule has
no memory but the state that is handed to it, and no chance but the generator.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import cycle, product

import numpy as np

from onestage.config import fault
from onestage.rollout.hints import Hint

STEPS = (0, 1, 7, 150, 299, 300, 10_000)
SUCCESSES = (0.0, 1.0, 0.5, 0.25, 0.875)


def laws(rule: Hint) -> list[str]:
    """The laws that a rule breaks, in words; none where all hold."""
    sizes = range(rule.max_chunks + 1) if rule.unit == "chunk" else (0, 1, 2, 19, 200)
    groups = list(product(STEPS, sizes))
    try:
        states = [{}, *_states(rule, groups)]
        broken = [law for state in states for law in _lengths(rule, groups, state)]
        broken += [law for state in states for law in _advanced(rule, groups, state)]
    except Exception as error:  # whatever a stranger's code raises
        return [f"a rule raises no {fault(error)}"]
    return list(dict.fromkeys(broken))


def _states(rule: Hint, groups: list[tuple[int, int]]) -> Iterator[dict[str, float]]:
    """Some states that it comes to."""
    state: dict[str, float] = {}
    for number, ((step, size), success) in enumerate(zip(groups, cycle(SUCCESSES), strict=False)):
        length = _length(rule, step, size, number, state)
        state = rule.advance(state, length, size, success)
        if number % 10 == 9:
            yield dict(state)


def _lengths(
    rule: Hint, groups: list[tuple[int, int]], state: Mapping[str, float]
) -> Iterator[str]:
    before, given = dict(state), []
    for number, (step, size) in enumerate(groups):
        given.append(_length(rule, step, size, number, state))
        if not isinstance(given[-1], int) or not 0 <= given[-1] <= size:
            yield "`length` is a whole number (int) from 0 to the size"
        if given[-1] and not rule.gives:
            yield "a rule that says it gives no hints (`gives`) gives none"
    # Asked again in another order: what was asked before must not matter.
    for number, (step, size) in reversed(list(enumerate(groups))):
        if _length(rule, step, size, number, state) != given[number]:
            yield "`length` is a function of the step, the size, the generator and the state alone"
    if state != before:
        yield "`length` leaves the state as it is"


def _advanced(
    rule: Hint, groups: list[tuple[int, int]], state: Mapping[str, float]
) -> Iterator[str]:
    before = dict(state)
    for number, (step, size) in enumerate(groups):
        length = _length(rule, step, size, number, state)
        for success in SUCCESSES:
            after = rule.advance(state, length, size, success)
            if state != before:
                yield "`advance` returns a new state and leaves the old one as it is"
                return
            if not _plain(after):
                yield "`advance` returns names and numbers, the same after a way through JSON"
            elif rule.advance(state, length, size, success) != after:
                yield "`advance` is a function of its arguments alone"


def _length(rule: Hint, step: int, size: int, seed: int, state: Mapping[str, float]) -> int:
    return rule.length(step, size, np.random.default_rng(seed), state)


def _plain(state: object) -> bool:
    try:
        same = json.loads(json.dumps(state, allow_nan=False)) == state
    except (TypeError, ValueError):
        return False
    return same and isinstance(state, dict)
