"""What became of bounds on what may be forgotten: a verdict by the interval, a line, a file; and how
many records it takes to tell.

A mean above a bound has broken it only where its whole interval lies above: sixteen answers say nothing
of two points of a hundred, on either side. And answers none of which is worth anything else than before
have a Student's interval of no width, though those that were not asked may differ (`stats.unseen`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from onestage.stats import Interval, critical, seeds_needed, unseen, unseen_needed

if TYPE_CHECKING:
    from onestage.training.run import Run

UNDECIDED = "undecided"
MOST = 100_000
"""Records, beyond which nobody asks how many would decide."""
TYPICAL = 0.1
"""The part of a suite's items that fine-tuning changes, in an example; on SmolLM2 some tenths are."""


def verdict(change: Interval, at_most: float) -> str:
    """`held` where the interval keeps the bound, `broken` where all of it lies above."""
    if change.high <= at_most:
        return "held"
    return "broken" if change.low > at_most else UNDECIDED


def needed(change: Interval, at_most: float, span: float | None) -> int | None:
    """How many records would decide, in four of five certificates, if what was found is true; None where
    `MOST` would not, or one record says nothing of the next."""
    away = at_most - change.mean
    if span is not None and change.sd == 0 and 0 < away < span:
        return unseen_needed(away / span)
    return seeds_needed(abs(away), change.sd, MOST)


def widened(change: Interval, span: float | None) -> Interval:
    """Of items that all changed alike, as all have that are worth what they were, the interval of those
    that were not asked. span: by how much an item can count; None: nobody knows."""
    if span is None or change.n < 2 or change.high > change.low:
        return change
    half = span * unseen(change.n)
    return Interval(change.mean, change.mean - half, change.mean + half, change.n, change.sd)


def too_few(n: int, at_most: float, span: float | None) -> str:
    """Why n items cannot show that a fall is at most this, whatever is found, in words; nothing where
    they may."""
    if span is None or not 0 < at_most < span or unseen(n) * span <= at_most:
        return ""
    least = unseen_needed(at_most / span)
    often = math.ceil(TYPICAL * (critical(least) * span / at_most) ** 2)
    return (
        f"{n} items cannot show that at most {at_most:g} is lost: not one of them may change, and yet "
        f"{unseen(n) * span:.2g} may be; {least:,} are the least, and some {often:,} where a tenth of "
        "the answers change"
    )


def certify(run: Run) -> None:
    """Say and write what became of a run's bounds, of the model that was saved."""
    if run.keeper is None:
        return
    with run.average.in_place() if run.average and run.average.mean else nullcontext():
        found = run.keeper.certify()
    for line in map(told, found):
        run.say(line)
    if run.folder:
        run.folder.certify(found)
    run.log({"step": run.step, **{k: v for one in found for k, v in logged(one).items()}})


def told(one: Mapping[str, Any]) -> str:
    """A certificate in a line."""
    bound, what = one["at_most"], "fall" if one["what"] == "suite" else one["what"]
    line = (
        f"keep {one['name']}: {what} {one['change']:.4g} ({one['low']:.4g} to "
        f"{one['high']:.4g}) on {one['records']:,} held-out records, at most {bound:g}: "
        f"{one['verdict']}"
    )
    if one["verdict"] == UNDECIDED:
        line += f" ({enough(one) if one['records'] else 'none of them could be judged'})"
    if one["relaxed_to"] is not None:
        line += f"; relaxed to {one['relaxed_to']:.4g}"
    if one["price"] and bound > 0:
        line += f"; a bound {bound / 10:.2g} higher would be worth {one['price'] * bound / 10:.2g}"
    return line


def enough(one: Mapping[str, Any]) -> str:
    """How many records would decide what a certificate does not, in words."""
    if one["needed"] is not None:
        return f"about {one['needed']:,} records would decide"
    if math.isnan(one["low"]):
        return "one record says nothing of the next"
    return f"so close to the bound that {MOST:,} records would not decide"


def logged(one: Mapping[str, Any]) -> dict[str, float]:
    """A certificate in a line of metrics."""
    where = f"keep/{one['name']}/held_out"
    return {where: one["change"], f"{where}_low": one["low"], f"{where}_high": one["high"]}
