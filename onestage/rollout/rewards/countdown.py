"""Countdown: make the target from the given numbers, each exactly once.

`exact`, our rules: the last `<answer> .. </answer>` of the response counts, wherever it stands; it
holds an expression of + - * / and parentheses, and may end with `= target`. It is computed exactly.

`authors`, to compare with the numbers of Liu et al. (arXiv 2505.16984), is their scorer (TinyZero's),
quirks included: only the last line is read, digits are the numbers wherever they stand, ** and // are
arithmetic, `= target` is an error, and anything at all within the tags is worth the format's reward.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from onestage.rollout.rewards import arithmetic
from onestage.rollout.rewards.checker import Checker
from onestage.rollout.rewards.contract import Answer
from onestage.rollout.rewards.marked import final_tag, on_last_line

_ALLOWED = re.compile(r"[\d+\-*/().\s]+")
_MOST_FOUND = 1000


@dataclass(frozen=True)
class Countdown(Checker):
    format_reward: float = 0.1
    """Of an expression that can be read but is not the answer."""
    rules: Literal["exact", "authors"] = "exact"

    def judge(self, answer: Answer) -> float:
        numbers, target = _problem(answer.facts)
        if self.rules == "authors":
            return self._as_authors(answer, numbers, target)
        found = final_tag(answer)
        if found is None or found[0].count("=") > 1:
            return 0.0
        equation, equals, tail = found[0].partition("=")
        try:
            expression = arithmetic.plain(equation)
            stated = arithmetic.plain(tail).value if equals else Fraction(target)
        except arithmetic.Unreadable:
            return 0.0
        used = Counter(expression.numbers) == Counter(map(Fraction, numbers))
        right = used and expression.value == target and stated == target
        return 1.0 if right else self.format_reward

    def _as_authors(self, answer: Answer, numbers: list[int], target: int) -> float:
        equation = on_last_line(answer)
        if equation is None:
            return 0.0
        found = re.findall(r"\d+", equation)
        if len(found) != len(numbers) or any(len(digits) > _MOST_FOUND for digits in found):
            return self.format_reward
        used = sorted(map(int, found)) == sorted(numbers)
        if not used or not _ALLOWED.fullmatch(equation):
            return self.format_reward
        try:
            value = arithmetic.python(equation).value
            near = value is not None and abs(value - target) < 1e-5
        except (arithmetic.Unreadable, OverflowError):
            return self.format_reward
        return 1.0 if near else self.format_reward

    def check(self, facts: Mapping[str, Any]) -> None:
        _problem(facts)


def _problem(facts: Mapping[str, Any]) -> tuple[list[int], int]:
    numbers = facts.get("nums")
    numbers = facts.get("numbers") if numbers is None else numbers
    target = facts.get("target")
    if isinstance(target, float) and target.is_integer():
        target = int(target)
    whole = isinstance(target, int) and not isinstance(target, bool)
    try:
        given = [] if isinstance(numbers, str) else [int(n) for n in numbers or () if n == int(n)]
    except (TypeError, ValueError, OverflowError):
        given = []
    if not whole or not given or len(given) != len(numbers or ()):
        raise ValueError(
            "countdown needs the columns `nums` (or `numbers`), a list of whole numbers, and `target`,"
            f" a whole number; got nums {numbers!r}, target {facts.get('target')!r}"
        )
    assert isinstance(target, int)
    return given, target
