r"""Word problems whose answer is one number, as in GSM8K.

`number`, our rules: the final answer is the last `<answer> .. </answer>`, else what follows the last
"####", else the last \boxed{..}. It must hold exactly one number, written in any common way ($18,
1,450,000, 18.0, 1/2, 18 eggs); two are no answer, whichever of them is right. Compared exactly.

`authors`, the scorer of Liu et al. (arXiv 2505.16984): the last tag on the last line, by Python's
`float`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from onestage.rollout.rewards.checker import Checker
from onestage.rollout.rewards.contract import Answer
from onestage.rollout.rewards.marked import last_boxed, last_tag, on_last_line

LONGEST = 500
"""Characters of a final answer."""
MOST_DIGITS = 50

_NUMBER = re.compile(
    r"(?P<minus>[-−–]\s?)?[$€£]?\s?(?P<minus2>[-−–])?"  # noqa: RUF001
    r"(?P<whole>\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?P<part>\.\d+)?(?:\s?/\s?(?P<below>\d+))?",
    re.ASCII,
)
_LATEX = (("\\$", "$"), ("{,}", ","), ("\\,", ""), ("\\!", ""), ("\\%", "%"), ("\\ ", " "))
_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}", re.ASCII)


@dataclass(frozen=True)
class GSM8K(Checker):
    format_reward: float = 0.1
    """Of a final answer that can be read but is wrong."""
    rules: Literal["number", "authors"] = "number"

    def judge(self, answer: Answer) -> float:
        gold = _gold(answer.facts)
        if self.rules == "authors":
            return self._as_authors(answer, gold)
        final = _final(answer.response)
        numbers = numbers_in(final) if final else []
        if not numbers:
            return 0.0
        return 1.0 if numbers == [gold] else self.format_reward

    def _as_authors(self, answer: Answer, gold: Fraction) -> float:
        text = on_last_line(answer)
        if text is None:
            return 0.0
        try:
            return 1.0 if abs(float(text) - float(gold)) < 1e-5 else self.format_reward
        except ValueError:
            return self.format_reward

    def check(self, facts: Mapping[str, Any]) -> None:
        _gold(facts)


def numbers_in(text: str) -> list[Fraction]:
    """All numbers of a short text, each as often as it stands there; none where one is too long."""
    if len(text) > LONGEST:
        return []
    text = _FRACTION.sub(r"\1/\2", text)
    for latex, plain in _LATEX:
        text = text.replace(latex, plain)
    found = []
    for match in _NUMBER.finditer(text):
        whole, part, below = (match[name] or "" for name in ("whole", "part", "below"))
        if not whole and not part:
            continue
        if len(whole + part + below) > MOST_DIGITS or (below and not int(below)):
            return []
        value = Fraction((whole.replace(",", "") or "0") + part) / Fraction(below or 1)
        found.append(-value if match["minus"] or match["minus2"] else value)
    return found


def _final(response: str) -> str | None:
    tag = last_tag(response)
    if tag:
        box = last_boxed(tag[0])
        return box[0] if box and tag[0].count("\\boxed{") == 1 else tag[0]
    _, marker, rest = response.rpartition("####")
    if marker:
        return rest.strip().split("\n")[0]
    boxed = last_boxed(response)
    return boxed[0] if boxed else None


def _gold(facts: Mapping[str, Any]) -> Fraction:
    given = facts.get("answer")
    given = facts.get("target") if given is None else given
    if not isinstance(given, bool) and isinstance(given, (int, float, str)):
        text = repr(given) if isinstance(given, float) else str(given)
        numbers = numbers_in(text.rpartition("####")[2])
        if len(numbers) == 1:
            return numbers[0]
    raise ValueError(
        "gsm8k needs the column `answer` (or `target`): a number, or a solution that ends in '#### 18';"
        f" got {given!r}"
    )
