"""From a difference and what was claimed of it to a verdict, with its p and what would decide it.

Two-sided at 5 %, with the interval of the difference over seeds (Student's t). A claim of *more*

- holds where the interval lies above zero and the mean is of practical size (the claim's margin),
- is reversed where the same is true below zero,
- and is equivalent where the interval lies within the margin, as in two one-sided tests.

A claim of *the same* holds where the interval lies within the margin, and is reversed where it lies
outside. One of *at least as good* holds where the interval lies above minus the margin. Fewer than four
seeds decide nothing: two equal ones have an interval of no width.

A claim may speak of several ("better than each of"): it is *refuted* where one of its differences is
equivalent and others are not, whatever those are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from onestage.stats import Interval, holm, mirrored, p_above, p_below, seeds_needed

Verdict = Literal["holds", "reversed", "equivalent", "refuted", "undecided", "withdrawn"]
Direction = Literal["more", "less", "same", "at_least", "at_most"]
ALPHA = 0.05
FEWEST = 4
"""Seeds below which nothing is decided."""


@dataclass(frozen=True)
class Difference:
    """One difference that a claim speaks of."""

    says: str
    mean: float
    low: float
    high: float
    n: int
    verdict: Verdict
    p: float
    """Of the verdict; of an undecided one the least of those it might have had."""
    distance: float
    """From the limit by which it is decided, or would be, in units of the metric."""
    sd: float
    """Over seeds, of the difference."""
    looks: int = 1
    """How often it was asked."""
    narrow: bool = False
    """Whether its interval should include the choice of settings and takes them as chosen: one that
    another draw of the tuning seeds would choose has not run on two reported seeds."""
    absent: str = ""
    """Why there is nothing to compare: no setting of a method was fit to be reported."""
    choice: float = 0.0
    """The part of the mean's standard error that is of the choice of settings."""


def difference(
    says: str, found: Interval, direction: Direction, margin: float, looks: int = 1
) -> Difference:
    """The verdict on one difference, before it is adjusted for being one of several.

    looks: how often it was asked; p is doubled for each time before this one (`asks`).
    """
    paid = _paid(looks)
    p = {verdict: min(1.0, paid * value) for verdict, value in _p(found, direction, margin).items()}
    sure = [verdict for verdict, value in p.items() if value <= ALPHA]
    enough = found.n >= FEWEST
    verdict: Verdict = sure[0] if sure and enough else "undecided"
    known = [value for value in p.values() if not math.isnan(value)]
    least = p.get(verdict, min(known, default=math.nan))
    ends, far = (found.mean, found.low, found.high), _distance(found.mean, direction, margin)
    return Difference(
        says, *ends, found.n, verdict, least, far, found.sd, looks, choice=found.choice
    )


def _paid(looks: int) -> int:
    """What p is multiplied by."""
    return 2 ** (looks - 1)


def _p(found: Interval, direction: Direction, margin: float) -> dict[Verdict, float]:
    """p of every verdict that there may be, the one that goes before others first."""
    if direction in ("less", "at_most"):
        found = mirrored(found)
    outside = 2 * min(p_above(found, margin), p_below(found, -margin))
    within = 2 * max(p_above(found, -margin), p_below(found, margin)) if margin else 1.0
    below = 2 * p_below(found, 0.0)
    if direction == "same":
        return {"holds": within, "reversed": outside}
    if direction in ("at_least", "at_most"):
        behind = below if found.mean <= -margin else 1.0
        return {"holds": 2 * p_above(found, -margin), "reversed": behind}
    return {
        "equivalent": within,
        "holds": 2 * p_above(found, 0.0) if found.mean >= margin else 1.0,
        "reversed": below if found.mean <= -margin else 1.0,
    }


def _distance(mean: float, direction: Direction, margin: float) -> float:
    """From the limit that is farthest from the mean as measured."""
    size = abs(mean)
    if direction == "same":
        return abs(size - margin)
    if direction in ("at_least", "at_most"):
        ahead = mean if direction == "at_least" else -mean
        return ahead + margin if ahead > -margin else size
    return size if size >= margin else margin - size


@dataclass(frozen=True)
class Whole:
    """The verdict on a claim, which speaks of one or several differences."""

    verdict: Verdict
    p: float
    p_holm: float
    """Adjusted for all claims of the study (Holm 1979)."""
    alone: Verdict
    """What it would be if it were the only claim."""
    seeds: int | None
    """That would decide what is undecided, were the differences as measured, beside the study's other
    claims that are (Holm). None: more than a thousand, or it is decided, or no spread is known."""


def together(claims: Sequence[Sequence[Difference] | None]) -> list[Whole]:
    """The verdicts of a study's claims, each given by its differences; None: withdrawn, which counts for
    nothing.

    A claim holds where all its differences do, and is equivalent where all are (its p is the largest of
    theirs); it is reversed where any is, else refuted where any is equivalent (its p is the smallest of
    those, times the number of all). What does not survive Holm is undecided.
    """
    alone = [_alone(parts) if parts is not None else None for parts in claims]
    counted = [p if verdict != "undecided" else 1.0 for verdict, p in filter(None, alone)]
    every = holm(counted)
    adjusted, left = iter(every), sum(p > ALPHA for p in every)
    found = []
    for one, parts in zip(alone, claims, strict=True):
        if one is None or parts is None:
            found.append(Whole("withdrawn", math.nan, math.nan, "withdrawn", None))
            continue
        (verdict, p), p_holm = one, next(adjusted)
        final: Verdict = verdict if p_holm <= ALPHA else "undecided"
        # The next of those that are left has to reach a p of 5 % over their number.
        seeds = _seeds(verdict, parts, ALPHA / left) if final == "undecided" else None
        found.append(Whole(final, p, p_holm, verdict, seeds))
    return found


def _seeds(alone: Verdict, parts: Sequence[Difference], alpha: float) -> int | None:
    """How many seeds would decide a claim at a level, were its differences as measured. None: more than
    a thousand, or no spread is known."""
    if alone in ("reversed", "refuted"):  # by one of its differences
        one = "reversed" if alone == "reversed" else "equivalent"
        needed = [_each(part, alpha / len(parts)) for part in parts if part.verdict == one]
        return min((seeds for seeds in needed if seeds is not None), default=None)
    open_ = parts if alone != "undecided" else [p for p in parts if p.verdict == "undecided"]
    needed = [_each(part, alpha) for part in open_]
    known = [seeds for seeds in needed if seeds is not None]
    return max(known) if len(known) == len(needed) > 0 else None


def without_choice(sd: float, n: int, choice: float) -> float:
    """The spread of n values alone, of one that has an error of choice in it (`Interval.choice`)."""
    return math.sqrt(max(0.0, sd**2 - n * choice**2))


def _each(part: Difference, alpha: float) -> int | None:
    # More seeds make their own part of the error smaller, and not that of the choice.
    sd = without_choice(part.sd, part.n, part.choice)
    paid = alpha / _paid(part.looks)
    return seeds_needed(part.distance, sd, alpha=paid, choice=part.choice)


def _alone(parts: Sequence[Difference]) -> tuple[Verdict, float]:
    if not parts:
        return "undecided", math.nan
    if behind := [part.p for part in parts if part.verdict == "reversed"]:
        return "reversed", _of_any(behind, parts)
    if len({part.verdict for part in parts}) == 1:
        return parts[0].verdict, max(part.p for part in parts)
    if none := [part.p for part in parts if part.verdict == "equivalent"]:
        return "refuted", _of_any(none, parts)
    return "undecided", max(part.p for part in parts)


def _of_any(found: Sequence[float], parts: Sequence[Difference]) -> float:
    return min(1.0, min(found) * len(parts))
