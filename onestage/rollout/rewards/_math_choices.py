r"""Answers that are one of several choices: `C`, `(C)`, `\textbf{(C)}\ 12`, with or without its text."""

from __future__ import annotations

import re
from collections.abc import Callable

from onestage.rollout.rewards._markup import characters
from onestage.rollout.rewards._math_words import CHANGING

Verdict = bool | None
_MARK = re.compile(r"\(\s*([A-J])\s*\)|([A-J])[.):]|([A-J])(?=\Z|\\)")
_SPACES = re.compile(r"(?:\\q?quad(?![a-z])|\\[ ,;:!]|\\newline|[\s.:])+")
_OTHER = re.compile(r"\(\s*([A-J])\s*\)|(?<![A-Za-z\\])([A-J])(?![A-Za-z'])")
_JOINED = re.compile(r"\b(?:or|and|oder|und|ou|et|nor)\b|[,/;|&]", re.IGNORECASE)


def lettered(text: str) -> str:
    """A text without what sets it, full stops and an article."""
    text = re.sub(r"\\(?:text|textbf|mathrm|mathbf|mbox)\s*\{([^{}]*)\}", r"\1", characters(text))
    text = re.sub(r"\\ ", " ", text).strip(" .")
    return re.sub(r"^(?:on|an?|the) (?=[A-Za-z]+$)", "", text)


def chosen(final: str, gold: str, same: Callable[[str, str], Verdict]) -> tuple[Verdict] | None:
    """The verdict where the right answer is a choice; None where it is none. Where it comes with its
    text, the text alone is right, too: `same` says so."""
    theirs = _choice(gold)
    if theirs is None or _others(*theirs):
        return None
    letter, text = theirs
    ours = _choice(final)
    if ours is None:
        if text:
            return (same(final, text),)
        small = re.fullmatch(r"\(?([a-j])[.)]?", lettered(final))
        return (small[1].upper() == letter,) if small else None
    others = _others(*ours)
    if others:
        alone = not re.search(r"[A-Za-z]{2}|\d", _JOINED.sub("", ours[1]))
        several = alone or "(" in ours[1] or _JOINED.search(ours[1])
        return (False if several else None,)
    if CHANGING & set(re.findall(r"[^\W\d_]+", ours[1].lower())):
        return (None,)  # (A) is wrong; or a choice that is called False
    if ours[0] == letter and text and ours[1] and same(ours[1], text) is False:
        return (None,)  # the right letter with another text
    return (ours[0] == letter,)


def _choice(text: str) -> tuple[str, str] | None:
    """The letter, and what stands behind it."""
    text = lettered(text)
    mark = _MARK.match(text)
    if mark is None:
        return None
    rest = text[mark.end() :]
    spaces = _SPACES.match(rest)
    if mark[3] and rest and not spaces:
        return None  # C\sqrt{2} is a product
    return mark[1] or mark[2] or mark[3], rest[spaces.end() if spaces else 0 :].strip()


def _others(letter: str, rest: str) -> set[str]:
    return {one or other for one, other in _OTHER.findall(rest)} - {letter}
