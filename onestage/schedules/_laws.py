"""What every schedule must keep, tried out on one: ours and other people's.

A run relies on these: a resumed run must go on as it would have, all processes must choose alike, and
what a run will measure must be known before it begins. The losses are made up, and some are missing.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Mapping
from types import FunctionType, ModuleType
from typing import Any

from onestage.schedules import Schedule, active

STEPS, STOPPED = 60, 17
TERMS = {"first": 1.0, "second": 3.0, "never": 0.0}


def laws(schedule: Schedule) -> list[str]:
    """The laws that a schedule breaks, in words; none where all hold.

    It is tried on its own weights, which must be given where it needs certain terms.
    """
    weights = schedule.weights or TERMS
    try:
        runs = [schedule.for_run(weights, STEPS, seed=3) for _ in range(3)]
        broken = list(_steps(runs[0]))
        again = _follow(runs[1], range(STEPS))
        if again != _follow(schedule.for_run(weights, STEPS, seed=3), range(STEPS)):
            broken.append("two processes of a run get the same weights in every step")
        broken += _resumed(runs[2], schedule.for_run(weights, STEPS, seed=3), again)
    except Exception as error:  # whatever a stranger's code raises
        return [f"a run of the terms {list(weights)} raises no {type(error).__name__} ({error})"]
    if "torch" in _libraries(type(schedule)):
        broken.append("a schedule is arithmetic on floats and uses no torch")
    return list(dict.fromkeys(broken))


def _steps(run: Schedule) -> Iterator[str]:
    """What is broken in the steps of a run."""
    measured: dict[str, int] = {}
    for step in range(STEPS):
        wanted = list(run.wants(step))
        if not set(wanted) <= set(run.weights):
            yield "`wants` names terms of the run"
        if wanted and run.measure == "never":
            yield "a schedule that wants losses says on which records (`measure`)"
        if any(step - measured.get(term, -STEPS) < run.measure_every for term in wanted):
            yield "`wants` names a term at most once in `measure_every` steps"
        measured |= dict.fromkeys(wanted, step)
        run.observe(step, _losses(wanted, step))
        before, weights = copy.deepcopy(run.state()), run.weigh(step)
        yield from _weights(run, weights)
        if run.weigh(step) != weights or run.state() != before:
            yield "`weigh` gives the same answer until something is observed"
        run.observe(step, _losses(active(weights), step))


def _weights(run: Schedule, weights: Mapping[str, float]) -> Iterator[str]:
    """What is broken in the weights of a step."""
    if set(weights) != set(run.weights):
        yield "`weigh` gives a weight to every term of the run, and to no other"
    elif not all(isinstance(w, int | float) and math.isfinite(w) for w in weights.values()):
        yield "weights are finite numbers"
    elif min(weights.values()) < 0 or not active(weights):
        yield "weights are not negative, and not all 0"
    elif any(not run.weights[term] for term in active(weights)):
        yield "a term whose weight is 0 is not trained on"


def _resumed(run: Schedule, later: Schedule, wanted: list[dict[str, float]]) -> Iterator[str]:
    """What is broken where a run is stopped and a new one goes on."""
    _follow(run, range(STOPPED))
    state = run.state()
    try:
        plain = json.loads(json.dumps(state, allow_nan=False))
    except (TypeError, ValueError):
        plain = None
    if plain != state:
        yield "`state` is plain data, the same after a way through JSON"
        return
    later.restore(plain)
    if _follow(later, range(STOPPED, STEPS)) != wanted[STOPPED:]:
        yield "a run that is stopped and restored goes on with the same weights"


def _follow(run: Schedule, steps: range) -> list[dict[str, float]]:
    """The weights of some steps, as the loop asks for them."""
    found = []
    for step in steps:
        run.observe(step, _losses(run.wants(step), step))
        found.append(dict(run.weigh(step)))
        run.observe(step, _losses(active(found[-1]), step))
    return found


def _losses(terms: Any, step: int) -> dict[str, float]:
    """Losses that fall and waver; now and then the records give an objective nothing to do."""
    found = {}
    for place, term in enumerate(terms):
        wave = math.cos(step * (1.3 + len(term)) + place)
        found[term] = math.nan if step % 11 == 5 else 2.0 + wave - step / STEPS
    return found


def _libraries(found: type) -> set[str]:
    """The packages that the methods of a class use by name."""
    used = set()
    for method in vars(found).values():
        method = getattr(method, "fget", method)
        for name in method.__code__.co_names if isinstance(method, FunctionType) else ():
            value = method.__globals__.get(name)
            module = value.__name__ if isinstance(value, ModuleType) else None
            used.add((module or getattr(value, "__module__", None) or name).split(".")[0])
    return used
