"""What several people said of one answer, made one, and how far they agree.

By rule: a score is the mean of its raters' scores; a label and a pair are what most raters say, and a
draw is left out as a tie. Who rates an answer twice counts once, with his mean; who contradicts himself
on a label or pair has no vote on it. Nobody is weighed or left out for differing from the others: the
table of raters is there to be looked at.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, pstdev
from typing import Any

from onestage.data.agreement import krippendorff_alpha
from onestage.data.kinds import FEEDBACK
from onestage.data.record import Record

Answer = bytes
"""A digest of a prompt and of what was said to it."""


@dataclass
class Rated:
    """One answer (or two that were compared) and who said what of it."""

    record: Record
    """As it came first."""
    said: dict[str, list[float]] = field(default_factory=dict)
    """By rater: scores; of labels 0 and 1; of pairs 1 where the first one's order is kept, else 0."""

    @property
    def graded(self) -> bool:
        return FEEDBACK[self.record.kind].scale == "graded"

    @property
    def paired(self) -> bool:
        return FEEDBACK[self.record.kind].paired

    def votes(self) -> dict[str, float]:
        """One a rater; nobody's who contradicts himself."""
        means = {rater: fmean(values) for rater, values in self.said.items()}
        return means if self.graded else {r: v for r, v in means.items() if v != 0.5}

    def verdict(self) -> float | None:
        """The score, or 1 or 0 for what most say; None for a draw."""
        votes = self.votes()
        if not votes:
            return None
        mean = fmean(votes.values())
        if self.graded:
            return mean
        return None if mean == 0.5 else float(mean > 0.5)

    def agreement(self) -> dict[str, float | int]:
        """What is kept beside the verdict: `raters`, and their `spread` or the part that `agree`."""
        votes = list(self.votes().values())
        if self.graded:
            return {"raters": len(votes), "spread": round(pstdev(votes), 6)}
        most = max(votes.count(0.0), votes.count(1.0)) / max(1, len(votes))
        return {"raters": len(votes), "agree": round(most, 6)}


@dataclass(frozen=True)
class Rater:
    """How one rater differs from the others."""

    name: str
    ratings: int
    shared: int
    """Of them, of answers that others rated as well."""
    bias: float | None
    """Mean of what he says minus what the others say of the same answers; None where nobody else did."""
    agreement: float | None
    """Of scores: 1 minus the mean distance to the others' mean; else how often he says what most of them
    do, a draw counting half."""


class Raters:
    """Ratings gathered from rows that name their annotator."""

    def __init__(self) -> None:
        self._rated: dict[Answer, Rated] = {}
        self.ratings = 0

    def __len__(self) -> int:
        """Different answers."""
        return len(self._rated)

    def __iter__(self) -> Iterator[Rated]:
        return iter(self._rated.values())

    def add(self, record: Record, rater: str) -> None:
        """Take in what one rater says of one answer, or of a pair of them."""
        sides = record.completions
        key = _digest(record.kind, record.prompt, _text(record.template), sorted(map(repr, sides)))
        rated = self._rated.setdefault(key, Rated(record))
        value = float(sides == rated.record.completions) if rated.paired else record.scores[0]
        rated.said.setdefault(rater, []).append(value)
        self.ratings += 1

    @staticmethod
    def takes(record: Record) -> bool:
        """Whether a record is a judgement of one answer, or of one pair without scores."""
        kind = FEEDBACK[record.kind]
        return len(record.scores) == 1 or (kind.paired and not record.scores)

    def contradictions(self) -> int:
        """How often a rater said both of one answer, and has no vote on it."""
        return sum(len(rated.said) - len(rated.votes()) for rated in self)

    def alpha(self) -> float | None:
        """Krippendorff's alpha; None where no two rated one answer, or all say the same of all."""
        units = [(rated, list(rated.votes().values())) for rated in self]
        # Of two answers, which came first is nobody's opinion: a pair counts with its mirror image.
        mirrored = [[1 - vote for vote in votes] for rated, votes in units if rated.paired]
        return krippendorff_alpha([*(votes for _, votes in units), *mirrored])

    def table(self) -> list[Rater]:
        """The raters, those who differ most first."""
        counts: Counter[str] = Counter()
        met: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for rated in self:
            votes = rated.votes()
            counts.update({name: len(values) for name, values in rated.said.items()})
            for name, vote in votes.items():
                if len(votes) > 1:
                    rest = (sum(votes.values()) - vote) / (len(votes) - 1)
                    # Of two answers none is the higher one.
                    bias = math.nan if rated.paired else vote - rest
                    met[name].append((bias, _alike(vote, rest, rated.graded)))
        found = [_rater(name, count, met[name]) for name, count in counts.items()]
        return sorted(found, key=lambda one: (-abs(one.bias or 0.0), one.name))


def _rater(name: str, ratings: int, met: Sequence[tuple[float, float]]) -> Rater:
    biases = [bias for bias, _ in met if not math.isnan(bias)]
    return Rater(
        name,
        ratings,
        len(met),
        fmean(biases) if biases else None,
        fmean(alike for _, alike in met) if met else None,
    )


def _alike(vote: float, rest: float, graded: bool) -> float:
    if graded:
        return 1 - abs(vote - rest)
    return 0.5 if rest == 0.5 else float((vote > 0.5) == (rest > 0.5))


def _text(template: Mapping[str, Any]) -> str:
    """What a prompt says beside its messages (tools), whatever the order of its keys."""
    return json.dumps(dict(template), sort_keys=True, default=repr)


def _digest(*parts: Any) -> Answer:
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()
