"""Before the first step: what a step takes, and how long an answer may be to fit a share of the time.

What an answer will take is not known before it is written, and one that goes on to a suite's last token
may take longer than all evaluations together. So a few tokens are written first, and a few more: the
seconds of a token follow, and with them the length at which answers must end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from onestage.data.trees import plant

if TYPE_CHECKING:
    from onestage.training.run import Run

FEW, MORE = 4, 36
"""Tokens of an answer that is written to see how long one takes: first, and then at most."""
TICK = 1e-6
"""Seconds that an answer takes at least, whatever a coarse clock says."""
TRIED, OF = 4, 200
"""Records by which a step's time is guessed; fewer in short runs: one of so many that are trained on."""


def longest_answer(ask: Callable[[int], tuple[float, bool]], seconds: float) -> int | None:
    """Tokens of an answer that takes no more than some seconds; None where answers end by themselves.

    ask: has an answer of at most so many tokens written; the seconds that it took, and whether it was
    ended there.
    """
    few, ended = ask(FEW)
    if not ended:
        return None
    few = max(few, TICK)
    if few >= seconds:
        return FEW
    # Where time is short, no more than it has room for, at worst.
    size = min(MORE, max(2 * FEW, int(FEW * seconds / few)))
    more, ended = ask(size)
    if not ended:
        return None
    # Not less than a part of the whole: the first may have taken long because it was the first.
    each = max((more - few) / (size - FEW), max(more, TICK) / size / 4)
    return max(FEW, int(size + (seconds - more) / each))


def seconds_of_a_step(
    run: Run, answer: Callable[[int], bool], clock: Callable[[], float] = time.monotonic
) -> float:
    """A guess: what it takes to read some records forward and backward. answer: where problems are
    answered, what is done for each instead: write at most so many tokens, and say whether there would be
    more, which are taken to be as many as there may be."""
    count = max(1, min(TRIED, run.steps * run.options.batch_size // OF))
    records = [one for one in run.first_records() if not one.is_problem][:count]
    # Of a record that trains in pieces one path is read, and its others are taken to be like it.
    budget, nodes = run.options.row_budget, [len(plant(one.paths)) for one in records]
    read = [
        one if size <= budget else replace(one, paths=one.paths[:1])
        for one, size in zip(records, nodes, strict=True)
    ]
    began, ended = clock(), False
    if records:
        rows = run.devices.deal(run.devices.pack(read, budget).rows)
        for place, row in enumerate(rows, 1):
            with run.devices.adding(last=place == len(rows)):
                run.accelerator.backward(run.devices.look(row, ())["logp"].sum())
        run.masters.gather()
        run.optimizer.zero_grad(set_to_none=True)
    else:
        ended = answer(MORE)
    taken = clock() - began
    if ended and run.answers:
        taken *= max(1.0, run.answers.answering.section.max_completion_length / MORE)
    if records:
        taken *= sum(nodes) / sum(len(plant(one.paths)) for one in read)
    return taken / max(1, len(records)) * run.options.batch_size
