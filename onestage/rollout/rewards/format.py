"""Does a response have the right shape?

`think_answer` is the shape of R1-like models: thoughts, `</think>`, then one `<answer> .. </answer>` and
nothing else; the opening `<think>` may stand in the prompt. `pattern` is a regular expression of yours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from onestage.rollout.rewards import Answer
from onestage.rollout.rewards._checker import Checker
from onestage.rollout.rewards._markup import visible

TAGS = ("<think>", "</think>", "<answer>", "</answer>")


@dataclass(frozen=True)
class Format(Checker):
    shape: Literal["think_answer", "pattern"] = "think_answer"
    pattern: str = ""
    """A regular expression of Python; `.` matches line ends."""
    match: Literal["search", "full"] = "search"
    """Of the pattern: anywhere in the response, or all of it."""
    right: float = 1.0
    wrong: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.shape == "pattern") != bool(self.pattern):
            raise ValueError("shape: pattern needs a pattern, and a pattern needs shape: pattern")
        if self.shape != "pattern" and self.match != "search":
            raise ValueError(f"match: {self.match} is of a pattern; take it out")
        try:
            re.compile(self.pattern, re.DOTALL)
        except re.error as error:
            raise ValueError(f"pattern {self.pattern!r}: {error}") from error

    def judge(self, answer: Answer) -> float:
        if self.shape == "think_answer":
            opened = answer.prompt.rstrip().endswith("<think>")
            good = _tags_in_order(("<think>" if opened else "") + answer.response)
        else:
            pattern = re.compile(self.pattern, re.DOTALL)
            find = pattern.search if self.match == "search" else pattern.fullmatch
            good = find(answer.response) is not None
        return self.right if good else self.wrong


def _tags_in_order(text: str) -> bool:
    text = text.strip()
    if any(text.count(tag) != 1 for tag in TAGS):
        return False
    opened, closed, answer, end = (text.index(tag) for tag in TAGS)
    between = text[closed + len(TAGS[1]) : answer]
    whole = opened == 0 and end + len(TAGS[3]) == len(text)
    said = visible(text[answer + len(TAGS[2]) : end]).replace("&nbsp;", " ").strip()
    return whole and opened < closed < answer < end and not between.strip() and bool(said)
