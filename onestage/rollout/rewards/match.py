"""Is the response one of the accepted answers?

For short answers that are right or wrong as text: a name, a label, a sequence of words. The column
`answer` holds the accepted one or a list of them. Both sides are compared word by word, so runs of
whitespace are one, and without what the options say does not matter.

`part` says what is compared. `whole` is hint and completion: behind a hint that is all of the answer it
is right to stop. Of the other parts, what ends within the hint was given, not found, and is wrong. What
never stops thinking (`<think>`, of the response or at the end of the prompt) is a draft, and wrong. A
sentence ends at a mark before a capital or a digit: text without capitals is one sentence.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from onestage.data.sentences import sentences
from onestage.rollout.rewards import Answer
from onestage.rollout.rewards._checker import Checker
from onestage.rollout.rewards._markup import thought_over, unmarked

MARKS = ".,;:!?"
LONGEST = 20_000
"""Characters of a response; a longer one is wrong."""


@dataclass(frozen=True)
class Match(Checker):
    part: Literal["whole", "first_sentence", "last_line", "last_word"] = "whole"
    """What of the response is compared; `last_line` is the last that is not empty."""
    ignore_case: bool = True
    ignore_final_marks: bool = True
    """Whether one of `.,;:!?` or more at the end, of either side, does not matter."""
    partial: Literal["none", "leading"] = "none"
    """What a wrong answer earns: nothing, or the part of its words that agree with an accepted answer
    up to the first that does not (of the longer of the two; the best of the accepted ones)."""

    def judge(self, answer: Answer) -> float:
        accepted = [words for text in _accepted(answer.facts) if (words := self._words(text))]
        draft = thought_over(answer.response, answer.prompt) is None
        if draft or len(answer.response) > LONGEST:
            return 0.0
        words = self._words(self._read(answer))
        if words in accepted:
            return 1.0
        if self.partial == "none":
            return 0.0
        shares = (_agree(words, right) / max(len(words), len(right)) for right in accepted)
        return max(shares, default=0.0)

    def check(self, facts: Mapping[str, Any]) -> None:
        for text in _accepted(facts):
            if not self._words(text):
                raise ValueError(f"match needs an `answer` with a word in it, got {text!r}")

    def _read(self, answer: Answer) -> str:
        if self.part == "whole":
            return answer.response
        response = answer.response.rstrip()
        if self.part == "first_sentence":
            start = len(response) - len(response.lstrip())
            read = next(iter(sentences(response[start:])), "").rstrip()
            end = start + len(read)
        else:
            read = next(iter(response.splitlines()[-1:]), "")
            read = next(iter(read.split()[-1:]), "") if self.part == "last_word" else read
            end = len(response)
        return read if end > len(answer.hint.rstrip()) else ""

    def _words(self, text: str) -> list[str]:
        # `**Paris**` is Paris; of the last word of bold text the marks at its end alone are left.
        text = unmarked(unicodedata.normalize("NFC", text)).strip("*`")
        text = text.casefold() if self.ignore_case else text
        text = text.strip()
        return (text.rstrip(MARKS) if self.ignore_final_marks else text).split()


def _agree(words: list[str], right: list[str]) -> int:
    """How many words agree before the first that does not."""
    pairs = enumerate(zip(words, right, strict=False))
    return next((n for n, (one, other) in pairs if one != other), min(len(words), len(right)))


def _accepted(facts: Mapping[str, Any]) -> list[str]:
    given = facts.get("answer")
    listed = [given] if isinstance(given, str) else given
    if isinstance(listed, (list, tuple)) and listed and all(isinstance(t, str) for t in listed):
        return list(listed)
    raise ValueError(f"match needs the column `answer`: a text or a list of them; got {given!r}")
