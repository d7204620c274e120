"""Which model to keep, and why, in words for whoever decides: one function on finished numbers.

A change counts where its interval leaves no doubt; a single number without an interval is taken as it
stands, and said to have none. How much must be won, and how much may be lost, is the user's to say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Standing = Literal["gained", "lost", "lost, as allowed", "open", "unchanged"]
HARDLY = 0.05
"""Points or per cent below which a single number has not changed."""
SHOWN = 4
"""Measures of a kind that a sentence names."""
FEW = 4
"""Seeds below which nothing is called sure."""


@dataclass(frozen=True)
class Thresholds:
    """What a user asks of a model. Shares (0 to 1) are told in points of 100, other measures in per cent
    of what they were."""

    wanted: float = 0.0
    """By how much the measures must have risen, on average, for a model to be kept."""
    allowed: float = 1.0
    """By how much a measure may fall."""
    by: str = ""
    """The measure that decides between several good models; default: the mean of all."""

    def __post_init__(self) -> None:
        for name, given in (("wanted", self.wanted), ("allowed", self.allowed)):
            # Nothing has fallen by more than what is no number.
            if math.isnan(given) or given == -math.inf:
                raise ValueError(f"{name} must be a number, got {given}")

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Thresholds:
        """Those that a recipe or a command gives; others are the defaults."""
        return cls(**{name: told[name] for name in ("wanted", "allowed", "by") if name in told})


@dataclass(frozen=True)
class Change:
    """One measure of the base and of a model."""

    measure: str
    before: float
    after: float
    low: float = math.nan
    """Bounds of the interval at 95 % of after - before; nan where it is not known."""
    high: float = math.nan
    better: str = "higher"
    share: bool = True
    """Whether it lies between 0 and 1 and is told in points."""
    kept: bool = False
    """Whether the model was to keep it, and not to gain: what it knew before."""
    n: int = 0
    """Of how many seeds the interval is; as if of four where it is over items."""

    @property
    def gain(self) -> float:
        """For the better, in points or per cent."""
        return self._told(self.after - self.before)

    @property
    def bounds(self) -> tuple[float, float]:
        """Of the gain; nan where they are not known."""
        ends = sorted((self._told(self.low), self._told(self.high)))
        return ends[0], ends[1]

    @property
    def sure(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)

    def standing(self, asked: Thresholds) -> Standing:
        """What became of it. `open`: it may have fallen by more than is allowed, or not."""
        low, high = self.bounds if self.sure else (self.gain, self.gain)
        nothing = 0.0 if self.sure else HARDLY
        if not math.isfinite(self.gain):
            return "lost"
        if low > nothing:
            return "gained"
        if high < -max(asked.allowed, nothing):
            return "lost"
        if high < -nothing:
            return "lost, as allowed" if low >= -asked.allowed else "open"
        return "open" if self.gain < -asked.allowed else "unchanged"

    def __str__(self) -> str:
        unit = "points" if self.share else "%"
        by = f"{self.after - self.before:+.4g}"
        if self.share:
            by = f"{100 * (self.after - self.before):+.1f} points"
        elif self.before:
            by = f"{100 * (self.after - self.before) / abs(self.before):+.1f} %"
        scale = 100.0 if self.share else 1.0
        told = f"{self.measure} {scale * self.before:.4g} to {scale * self.after:.4g} ({by}"
        if not self.sure:
            return f"{told}, no interval)"
        size = 100.0 if self.share else 100 / abs(self.before) if self.before else 1.0
        return f"{told}, 95 % interval {size * self.low:+.1f} to {size * self.high:+.1f} {unit})"

    def _told(self, difference: float) -> float:
        sign = -1.0 if self.better == "lower" else 1.0
        scale = 1.0 if self.share else abs(self.before) or 1.0
        return sign * 100 * difference / scale


@dataclass(frozen=True)
class Candidate:
    """A model that may be kept, and what became of each measure in it."""

    name: str
    changes: Sequence[Change]


@dataclass(frozen=True)
class Verdict:
    """What to do, and on what grounds."""

    keep: str
    """The model to keep; the base's name where none is better."""
    sentence: str
    grounds: list[str] = field(default_factory=list)
    """Sentences: gained, lost, open, whether seeds are few, what was asked."""
    changes: list[tuple[Change, Standing]] = field(default_factory=list)
    """Of the model that is kept, or that came nearest to it."""
    asked: str = ""
    """What was asked, and whether seeds are few; in the grounds, too."""

    @property
    def lines(self) -> list[str]:
        return [self.sentence, *self.grounds]


def judge(
    candidates: Sequence[Candidate], base: str = "the start model", asked: Thresholds | None = None
) -> Verdict | None:
    """Which of some models to keep, or the base that all are compared with; None where nothing was
    measured of both.

    Among the models of which no measure has surely fallen by more than is allowed, and whose measures
    have risen by more than is wanted, the one that rose most.
    """
    asked = asked or Thresholds()
    known = [one for one in candidates if one.changes]
    if not known:
        return None
    good = [one for one in known if _good(one, asked)]
    best = max(good or known, key=lambda one: _rank(one, asked))
    keep = best.name if good else base
    others = f" of {len(known)} models" if len(known) > 1 else ""
    if good:
        sentence = (
            f"Keep {best.name}{', the best' + others if others else ''}: {_won(best, asked)}."
        )
    else:
        sentence = f"Keep {base}: {_against(best, asked, len(known))}."
    named = any(change.measure == asked.by for one in known for change in one.changes)
    limits = _limits(asked, named, len(known))
    changes = [(change, change.standing(asked)) for change in best.changes]
    grounds = [*_grounds(best, asked), *_too_few(best), limits]
    return Verdict(keep, sentence, grounds, changes, " ".join([*_too_few(best), limits]))


def _goals(one: Candidate, asked: Thresholds) -> list[Change]:
    named = [change for change in one.changes if change.measure == asked.by]
    return named or [change for change in one.changes if not change.kept] or list(one.changes)


def _rank(one: Candidate, asked: Thresholds) -> float:
    gains = [change.gain for change in _goals(one, asked) if math.isfinite(change.gain)]
    return sum(gains) / len(gains) if gains else -math.inf


def _good(one: Candidate, asked: Thresholds) -> bool:
    standings = [change.standing(asked) for change in one.changes]
    goals = [change.standing(asked) for change in _goals(one, asked)]
    return "lost" not in standings and "gained" in goals and _rank(one, asked) > asked.wanted


def _won(one: Candidate, asked: Thresholds) -> str:
    goals = _goals(one, asked)
    gained = [change for change in goals if change.standing(asked) == "gained"]
    told = f"it is better in {len(gained)} of {_measures(len(goals))}"
    opened = any(change.standing(asked) == "open" for change in one.changes)
    rest = "and may have lost something" if opened else "and lost nothing beyond what is allowed"
    return f"{told}, {rest}"


def _against(best: Candidate, asked: Thresholds, count: int) -> str:
    which = best.name if count == 1 else f"the best of {count} models ({best.name})"
    lost = [change.measure for change in best.changes if change.standing(asked) == "lost"]
    if lost:
        return f"{which} lost more than is allowed in {_listed(lost)}"
    if not any(change.standing(asked) == "gained" for change in _goals(best, asked)):
        return f"nothing shows that {which} is better"
    mean = f"{_rank(best, asked):.1f}"
    return f"{which} gained {mean} on average, and more than {asked.wanted:g} is wanted"


def _grounds(one: Candidate, asked: Thresholds) -> list[str]:
    found: dict[Standing, list[Change]] = {}
    for change in one.changes:
        found.setdefault(change.standing(asked), []).append(change)
    heads: dict[Standing, str] = {
        "gained": "Gained",
        "lost": "Lost, more than is allowed",
        "lost, as allowed": "Lost, within what is allowed",
        "open": "Not settled (the numbers leave open whether it fell by more than is allowed)",
    }
    told = [
        f"{head}: {_listed([str(one) for one in _largest_first(found[standing])], '; ')}."
        for standing, head in heads.items()
        if standing in found
    ]
    same = [change.measure for change in found.get("unchanged", [])]
    return told + ([f"As before: {_listed(same)}."] if same else [])


def _too_few(one: Candidate) -> list[str]:
    seeds = [change.n for change in one.changes if change.sure and 0 < change.n < FEW]
    if not seeds:
        return []
    return [f"Intervals of {min(seeds)} seeds: fewer than {FEW} are a sign, and settle nothing."]


def _largest_first(changes: Sequence[Change]) -> list[Change]:
    return sorted(changes, key=lambda one: -abs(one.gain) if math.isfinite(one.gain) else -math.inf)


def _limits(asked: Thresholds, named: bool, count: int) -> str:
    by = f", decided by {asked.by}" if asked.by else ""
    if asked.by and not named:
        by += ", which was not measured: the mean of all decided"
    several = " One of several models, chosen by the numbers shown: they flatter it."
    return (
        f"Asked for: a mean gain above {asked.wanted:g} and no measure down by more than "
        f"{asked.allowed:g} (points of 100, or per cent of what it was){by}."
        + (several if count > 1 else "")
    )


def _measures(count: int) -> str:
    return f"{count} measure{'s' if count != 1 else ''}"


def _listed(words: Sequence[str], between: str = ", ") -> str:
    more = len(words) - SHOWN
    return between.join(words[:SHOWN]) + (f" and {more} more" if more > 0 else "")
