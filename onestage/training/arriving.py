"""Streams that are trained on while their records still arrive: what a run allows of them, and how its
ranks come by the same portions.

The first process of each node reads the source, and encodes a portion when all have drawn what is before
it. It tells its node's others where the portion lies, and all compare what is in theirs with the main
one's: no disk is shared, and a source that gives one node other rows than another is found out at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from accelerate import Accelerator

from onestage.config import RecipeError
from onestage.data.portions import Portions
from onestage.data.store import Store
from onestage.data.stream import Stream
from onestage.rollout import build as rollout
from onestage.rollout.problems import Problems
from onestage.runfolder import Say
from onestage.training.agreeing import first_of_node, require_same, tell_all
from onestage.training.read import Data, check_table, idle, told
from onestage.training.recipe import Optimum, Train
from onestage.training.terms import Terms


def read_together(
    accelerator: Accelerator | None,
    read: Callable[[Mapping[str, str]], Data],
    streams: Sequence[Stream],
    problems: Mapping[str, Problems],
    train: Train,
    say: Say,
) -> Data:
    """What `read` returns, on all ranks (`first_of_node`). From then on all have the next portion of a
    stream come together, when they draw from it: they draw the same. `problems`: by stream, what judges
    the answers to those that it holds."""
    data = first_of_node(accelerator, read)
    for stream in (stream for stream in streams if stream.portion):
        name, portions = stream.name, data.arriving[stream.name]
        unused = dict.fromkeys(idle(stream, portions.stores.first))
        for what in unused:
            say(f"data {name}, of its first portion: {what}")
        if accelerator:
            judged = {one: judge for one, judge in problems.items() if one == name}
            known = (stream, portions, unused, portions.more, judged, train, accelerator, say)
            portions.more = partial(_more, *known)
    return data


def _more(
    stream: Stream,
    portions: Portions,
    unused: dict[str, None],
    make: Callable[[], Store | None],
    judged: Mapping[str, Problems],
    train: Train,
    accelerator: Accelerator,
    say: Say,
) -> Store | None:
    """Raises what reading raises, and `RecipeError` for rows that a run does not allow. `unused`: what
    no portion so far has a use for."""
    name = stream.name
    first, number = accelerator.is_local_main_process, len(portions.stores) + 1
    _, places = tell_all(
        accelerator,
        lambda: make() if first else None,
        # A portion of which no row can be used is one, and not the end.
        lambda made: "" if made is None else str(made.folder),
    )
    place = places[accelerator.process_index - accelerator.local_process_index]
    require_same(accelerator, {f"portion {number} of the data {name}": Path(place).name})
    if not place:
        say(f"data {name}: ended after {len(portions):,} records; they come again")
        for what in unused:
            say(f"data {name}, of all of it: {what}")
        return None
    found = Store(Path(place))
    for what in unused.keys() - idle(stream, found) if len(found) else ():
        del unused[what]
    check_table(f"{name}, portion {number}", found.table, train)
    rollout.check(judged, {name: found})
    say(f"data {name}: portion {number}, {told(found.table)}")
    return found


def check(
    streams: Sequence[Stream],
    watched: Sequence[Stream],
    train: Train,
    optimum: Optimum | None,
    data: Data,
    terms: Terms,
    *,
    mixed: bool,
) -> None:
    """Raise `RecipeError` for what takes more of a stream than its first portion before the first
    step. `mixed`: whether all terms draw one batch."""
    for stream in watched:
        if stream.portion:
            _refuse(stream.name, "it is watched, always the same of it", "leave portion out")
    rest = [stream for stream in streams if stream.per_step is None]
    by_size = len(rest) > 1 and all(stream.weight is None for stream in rest)
    for stream in (stream for stream in streams if stream.portion):
        kinds = list(data.train[stream.name].counts())
        if train.max_steps is None:
            _refuse(stream.name, "nobody knows how long an epoch of it is", "give train.max_steps")
        if by_size and stream in rest:
            _refuse(stream.name, "nobody knows its size", "give it a weight, or per_step")
        if optimum and optimum.steps:
            _refuse(stream.name, "f* is measured on all of it", "give the values (optimum.given)")
        if not mixed and len({terms.term_of[stream.name, kind] for kind in kinds}) > 1:
            held = ", ".join(kinds)
            why = f"its {held} records would be drawn apart, and of one none may come for long"
            _refuse(stream.name, why, "take schedule: proportional, or give each a stream")


def _refuse(name: str, why: str, instead: str) -> None:
    raise RecipeError(f"data {name}: arrives in portions, and {why}; {instead}")
