"""What every schedule must keep, tried out on one: ours and other people's.

A run relies on these: a resumed run must go on as it would have, all processes must choose alike, and
what a run will measure must be known before it begins. The losses are made up, and some are missing.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import FunctionType, ModuleType
from typing import Any, get_args

from onestage import config
from onestage.schedules import OWN, Schedule, Slopes, active
from onestage.schedules.surgery import Rule

STEPS, STOPPED = 60, 17
TERMS = {"first": 1.0, "second": 3.0, "never": 0.0}
MEETINGS: Mapping[str, tuple[Sequence[float], Sequence[float]]] = {
    "agree": ((1.0, 0.0), (2.0, 0.0)),
    "are at right angles": ((1.0, 0.0), (0.0, 3.0)),
    "conflict": ((1.0, 0.2), (-2.0, 1.0)),
    "are opposed": ((1.0, 0.0), (-1.0, 0.0)),
    "are of very different lengths": ((1e-4, 1e-4), (0.0, 1e4)),
}
"""How two gradients may stand to each other; others are like the first."""
FILLED = ("weights", "steps", "seed", "optimum")
"""Fields that are no options."""


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
        if schedule.combines == OWN:
            broken += _combined(schedule.for_run(weights, STEPS, seed=3))
    except Exception as error:  # whatever a stranger's code raises
        return [f"a run of the terms {list(weights)} raises no {config.fault(error)}"]
    broken += _rule(schedule.combines)
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
        yield from _felt(run, active(weights), step)


def _felt(run: Schedule, terms: Sequence[str], step: int) -> Iterator[str]:
    """What is broken where it is told of gradients."""
    before = copy.deepcopy(run.state())
    run.feel(step, _slopes(terms, step))
    if not run.feels and run.state() != before:
        yield "a schedule that goes by what it is told of gradients says so (`feels`)"


def _rule(combines: str) -> Iterator[str]:
    known = ("", OWN, *get_args(Rule))
    if combines not in known:
        yield f"`combines` is one of {known}, not {combines!r}"


def _combined(run: Schedule) -> Iterator[str]:
    """What is broken where it combines gradients: after losses were seen, and of some terms alone."""
    _follow(run, range(2))
    terms = active(run.weights)
    cases = {f"that {how}": (terms, two) for how, two in MEETINGS.items()}
    cases |= {f"of {term} alone": ([term], MEETINGS["agree"]) for term in terms}
    for how, (met, (first, second)) in cases.items():
        vectors = [second if place == 1 else first for place in range(len(met))]
        slopes, before = _products(met, vectors), copy.deepcopy(run.state())
        found = run.combine(slopes)
        if set(found) != set(met):
            yield "`combine` gives a factor to every term that it is told of, and to no other"
        elif not all(isinstance(f, int | float) and math.isfinite(f) for f in found.values()):
            yield f"the factors of gradients {how} are finite numbers"
        elif (
            "agree" in how
            and not sum(run.share[t] * found[t] * slopes.inner[t][met[0]] for t in met) > 0
        ):
            yield "where all gradients agree, what they are combined to points as they do"
        if run.combine(slopes) != found or run.state() != before:
            yield "`combine` gives the same answer until something is observed"


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
    """The weights of some steps, and factors of gradients, as the loop asks for them."""
    found = []
    for step in steps:
        run.observe(step, _losses(run.wants(step), step))
        weights = dict(run.weigh(step))
        slopes = _slopes(active(weights), step)
        factors = run.combine(slopes) if run.combines == OWN else {}
        found.append(weights | {f"{term}'s gradient": factor for term, factor in factors.items()})
        run.observe(step, _losses(active(weights), step))
        run.feel(step, slopes)
    return found


def require_read(schedule: Schedule, name: str) -> None:
    """Raise `ValueError` for an option that is given and that nothing of the schedule reads."""
    named = [getattr(schedule, "supervised", None)]
    weights = schedule.weights or {**TERMS, **{term: 2.0 for term in named if term}}
    try:
        run = schedule.for_run(weights, STEPS, seed=3)
    except ValueError:
        return  # it does not go with terms: of which, its run will say
    config.require_read(f"schedule {name}", run, _use, FILLED)


def _use(run: Schedule) -> None:
    """All that a run asks of it."""
    _follow(run, range(STEPS))
    _ = run.batch, run.one_at_a_time, run.feels, run.state()
    _ = run.measure, run.measure_fraction, run.measure_every


def _slopes(terms: Collection[str], step: int) -> Slopes:
    """Gradients that turn; now and then one vanishes, or a batch says nothing of its noise."""
    vectors = []
    for place, _ in enumerate(terms):
        size = 0.0 if step % 13 == 4 + place else 1.0 + place
        turn = step * (0.7 + place)
        vectors.append((size * math.cos(turn), size * math.sin(turn), 0.3 * size))
    found = _products(terms, vectors)
    noise = {} if step % 7 == 3 else {term: 0.5 + math.cos(step) ** 2 for term in terms}
    return Slopes(found.inner, noise)


def _products(terms: Collection[str], vectors: Sequence[Sequence[float]]) -> Slopes:
    def times(left: Sequence[float], right: Sequence[float]) -> float:
        return math.fsum(a * b for a, b in zip(left, right, strict=True))

    each = dict(zip(terms, vectors, strict=True))
    return Slopes({a: {b: times(each[a], each[b]) for b in each} for a in each})


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
