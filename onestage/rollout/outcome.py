"""What happened when problems were answered: counted by stream, told as metrics.

Nothing that goes wrong with an answer stops a run by itself; it is counted here and shown: completions
that did not end or are empty, rewards that could not be found, groups whose rewards are all equal, and
problems without a worked solution where hints are wanted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

NEARLY_ALL = 0.9


@dataclass(frozen=True, slots=True)
class Outcome:
    """One problem and its group of completions."""

    source: str
    rewards: tuple[float, ...]
    parts: Mapping[str, tuple[float, ...]]
    """Rewards of each kind, unweighted; NaN where none was found."""
    lengths: tuple[int, ...]
    ended: tuple[bool, ...]
    empty: int
    """Completions without any text."""
    failures: Mapping[str, int]
    """Rewards that could not be found, by the sort of trouble."""
    trouble: str
    """What the first of them said."""
    hint: int
    """Units (chunks or tokens) given away."""
    size: int
    """Units there are; 0 without a worked solution."""
    success: float
    """Part of the completions that are right."""
    example: Mapping[str, Any]
    """Texts and rewards, to be shown."""

    @property
    def equal(self) -> bool:
        """Whether nothing can be learnt from comparing the group."""
        return max(self.rewards) == min(self.rewards)


@dataclass
class Report:
    """Sums over outcomes since the last time it was told."""

    sums: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    tokens: int = 0
    gap: float = 0.0
    """Largest mean distance (nats a token) of an engine's log-probabilities from the policy's."""

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Report:
        """Of its fields as a JSON file holds them."""
        counters = {name: Counter(state[name]) for name in ("sums", "counts") if name in state}
        return cls(**{**state, **counters})

    def add(self, outcomes: Iterable[Outcome], hinted: Mapping[str, bool]) -> None:
        """`hinted`: the streams whose rule gives hints."""
        for one in outcomes:
            size, source = len(one.rewards), one.source
            if size > 1:
                self._mean(f"{source}/reward_std", float(np.std(one.rewards, ddof=1)), 1)
                self._mean(f"{source}/frac_reward_zero_std", float(one.equal), 1)
            self._mean(f"{source}/success", one.success * size, size)
            self._mean(f"{source}/completion_length", float(sum(one.lengths)), size)
            self._mean(f"{source}/truncated", float(size - sum(one.ended)), size)
            self._mean(f"{source}/empty", float(one.empty), size)
            self._mean(f"{source}/failed", float(sum(one.failures.values())), size)
            for sort, count in one.failures.items():
                self.sums[f"{source}/failed/{sort}"] += count
            for name, values in one.parts.items() if len(one.parts) > 1 else ():
                known = [value for value in values if value == value]
                self._mean(f"{source}/reward/{name}", float(sum(known)), len(known))
            if hinted.get(source):
                self._mean(f"{source}/hint_length", float(one.hint), 1)
                self._mean(f"{source}/hint_share", one.hint / max(one.size, 1), 1)
                self._mean(f"{source}/without_solution", float(not one.size), 1)
            self.tokens += sum(one.lengths)

    def _mean(self, name: str, total: float, count: int) -> None:
        self.sums[name] += total  # type: ignore[assignment]
        self.counts[name] += count

    def tell(self) -> dict[str, float]:
        """Means (and counts of failures); what was told is forgotten."""
        found = {
            name: total / self.counts[name] if name in self.counts else float(total)
            for name, total in self.sums.items()
            if self.counts.get(name, 1)
        }
        if self.seconds:
            found["rollout/seconds"] = self.seconds
            found["rollout/tokens_per_second"] = self.tokens / self.seconds
        if self.gap:
            found["rollout/engine_gap"] = self.gap
        self.sums, self.counts = Counter(), Counter()
        self.seconds, self.tokens, self.gap = 0.0, 0, 0.0
        return found


def hopeless(outcomes: Sequence[Outcome]) -> bool:
    """Whether a rollout taught nothing: nothing right, and rewards equal within nearly all groups. (A
    reward model's are never equal, and need no threshold for being right.)"""
    equal = sum(one.equal for one in outcomes)
    return equal >= NEARLY_ALL * len(outcomes) and not any(one.success for one in outcomes)


def unjudged(outcomes: Sequence[Outcome]) -> list[str]:
    """The rewards that could be found for no answer of a rollout of a stream."""
    parts = outcomes[0].parts
    return [p for p in parts if all(np.isnan(one.parts[p]).all() for one in outcomes)]


def advice(name: str, rollouts: int, last: Sequence[Outcome], *, hinted: bool) -> str:
    """What to tell the user of a stream where nothing was right for some rollouts; `last`: the last
    one's outcomes."""
    text = f"ALARM: stream {name}: no completion was right in {rollouts} rollouts"
    failed = sum(sum(one.failures.values()) for one in last)
    if failed:
        first = next(one.trouble for one in last if one.trouble)
        text += f"; {failed} rewards could not be found in the last one ({first})"
    best = max(max(one.rewards) for one in last)
    text += (
        f"; the best reward there is {best:g}: look at samples.jsonl, is the answer's form right?"
    )
    if hinted:
        return text + " Or train on worked solutions first"
    if any(one.size for one in last):
        return (
            text + f" The data have worked solutions: data.{name}.hint: cosine gives them as hints"
        )
    return text + " Hints would need a `solution` column (docs/hints.md)"
