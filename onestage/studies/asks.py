"""Claims that were asked more than once: all their seeds together, and every look paid for.

What a study leaves undecided another may ask again, on seeds of its own. To read the last answer alone
would throw away what the first seeds said, and whoever asks until it comes out will have an answer some
day. So the verdict is of the seeds of all asks together, and its p is doubled for each ask before the
last: where nothing is true, a look finds something at 5 %, the next at 2.5 %, then 1.25 %, in all at
less than 10 % however often one asks (the looks of a group sequential test, with a Bonferroni bound).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from onestage.report.claims import asked_again
from onestage.stats import Interval, critical, student
from onestage.studies.verdicts import Difference, difference, together, without_choice

Entry = Mapping[str, Any]
"""A claim with its verdict, as `claims.json` has it."""


@dataclass(frozen=True)
class Judged:
    """A finished study."""

    seeds: Sequence[int]
    claims: Sequence[Entry]


def over_all(studies: Mapping[str, Judged]) -> dict[str, list[Entry]]:
    """The claims of every study by its name. What others left to it, and it to none, has the differences
    and the verdict of all seeds, and beside them `asks` (how many studies), `counted` (those whose seeds
    count: of other settings, `asked_otherwise`, or another number of differences they do not) and `here`
    (its own parts).

    Raises `ValueError` where a seed is in two asks.
    """
    return {name: _of_study(name, studies) for name in studies}


def _of_study(name: str, studies: Mapping[str, Judged]) -> list[Entry]:
    claims = studies[name].claims
    # One that is asked once more is judged there.
    asked = [
        [entry] if asked_again(entry) in studies else [entry, *_before(name, entry, studies, {})]
        for entry in claims
    ]
    if all(len(asks) == 1 for asks in asked):
        return list(claims)
    parts = [
        None if entry["verdict"] == "withdrawn" else list(_parts(asks))
        for entry, asks in zip(claims, asked, strict=True)
    ]
    found: list[Entry] = []
    for entry, asks, some, whole in zip(claims, asked, parts, together(parts), strict=True):
        more: dict[str, Any] = {}
        if len(asks) > 1:
            more = {"asks": len(asks), "counted": len(_same(asks)), "here": entry["parts"]}
        judged = {} if some is None else {"parts": [asdict(part) for part in some]}
        found.append({**entry, **asdict(whole), **judged, **more})
    return found


def _before(
    name: str, entry: Entry, studies: Mapping[str, Judged], seen: Mapping[str, Sequence[int]]
) -> Iterator[Entry]:
    """What other studies left to this one of a claim, and to those. Those that had nothing to compare do
    not count: no look at them could have ended in a verdict.

    seen: the seeds of the studies that have asked since.
    """
    seen = {**seen, name: studies[name].seeds}
    for other, judged in studies.items():
        for earlier in judged.claims:
            if asked_again(earlier) != name or earlier["claim"] != entry["claim"]:
                continue
            for later, seeds in seen.items():
                if both := sorted(set(judged.seeds) & set(seeds)):
                    raise ValueError(
                        f"{other} and {later} both ask {entry['claim']!r} of seeds {both}, which cannot "
                        f"count twice: run {later} on other seeds, or take asked_again out of "
                        f"{other}.yaml and judge it again"
                    )
            if any(part["n"] > 1 for part in earlier["parts"]):
                yield earlier
            yield from _before(other, earlier, studies, seen)


def _parts(asks: Sequence[Entry]) -> Iterator[Difference]:
    """The differences of the last ask, which comes first, over the seeds of all that asked for the same.
    Of the others only the looks count."""
    entry = asks[0]
    for part, *others in zip(*(one["parts"] for one in _same(asks)), strict=True):
        found = pooled([_interval(one) for one in (part, *others)])
        direction, margin = entry.get("direction", "more"), entry.get("margin", 0.0)
        looks = max(sum(1 + one.get("added", 0) for one in asks), part.get("looks", 1))
        judged = difference(part["says"], found, direction, margin, looks)
        narrow = any(one.get("narrow") for one in (part, *others))
        yield replace(judged, narrow=narrow, absent=part.get("absent", ""))


def _same(asks: Sequence[Entry]) -> list[Entry]:
    """Those that asked for the same as the last, which comes first."""
    same: list[Entry] = []
    for one in asks:
        if len(one["parts"]) != len(asks[0]["parts"]):
            break
        same.append(one)
        if one.get("asked_otherwise"):
            break
    return same


def _interval(part: Mapping[str, Any]) -> Interval:
    """With the spread that its width says, which may include the choice of settings. (The end of a tau's
    may be cut at -1 or 1; the other is not.)"""
    mean, n = part["mean"], part["n"]
    if n < 2:
        return Interval(math.nan if mean is None else mean, math.nan, math.nan, n)
    half = max(mean - part["low"], part["high"] - mean)
    sd = half / critical(n - 1) * math.sqrt(n)
    return Interval(mean, part["low"], part["high"], n, sd, part.get("choice", 0.0))


def pooled(samples: Sequence[Interval]) -> Interval:
    """The interval of all values of several samples, from the mean, spread and size of each: the same as
    `interval` of all the values. Samples of one value, whose spread is not known, are left out, unless
    there are no others. What is of a choice of settings is taken as of one choice, made once for all."""
    several = [one for one in samples if one.n > 1]
    if len(several) < 2:
        return several[0] if several else samples[0]
    n = sum(one.n for one in several)
    mean = math.fsum(one.n * one.mean for one in several) / n
    squares = math.fsum(
        (one.n - 1) * without_choice(one.sd, one.n, one.choice) ** 2
        + one.n * (one.mean - mean) ** 2
        for one in several
    )
    choice = math.fsum(one.n * one.choice for one in several) / n
    whole = student(mean, math.sqrt(squares / (n - 1) + n * choice**2), n)
    return replace(whole, choice=choice)
