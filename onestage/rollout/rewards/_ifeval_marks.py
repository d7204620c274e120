"""What IFEval's instructions count of Markdown: bullets, highlighted parts, placeholders.

As in `_ifeval_text`, a count is the least and the most that it can be.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from onestage.rollout.rewards._ifeval_text import Count

OTHER_RULE = r"^[ \t]*(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$"
"""A line across the page."""
_BULLET = re.compile(r"([ \t]*)([-*+\u2022])([ \t]+\S|[^\W\d_]|[ \t]*$)")
_EMPHASISED = re.compile(r"\s*\*[^\s*][^*]*(?<=\S)\*(?!\w)")
_UNDERSCORED = re.compile(r"(?<![\w_])_{1,2}(?=[^\s_])[^\n_]+_{1,2}(?!\w)")


def bullets(text: str) -> Count:
    """Lines that begin with - or *; at most also nested ones and those with other signs. `-5 degrees`
    and `*Note* that` are none."""
    low = high = 0
    outer: int | None = None
    for line in text.split("\n"):
        found = _BULLET.match(line)
        if not found or re.match(OTHER_RULE, line.rstrip()) or _EMPHASISED.match(line):
            continue
        indent = len(found[1].expandtabs(4))
        outer = indent if outer is None else min(outer, indent)
        high += 1
        low += found[2] in "-*" and bool(found[3].strip()) and indent < outer + 2
    return low, high


def highlights(text: str) -> Count:
    """*like this*, **this** or ***this***, each once; at most also what stands within, and _this_."""
    low = high = 0
    for line in text.split("\n"):
        spans = sorted(_emphases(line))
        high += len(spans)
        end = 0
        for start, stop in spans:
            low += start >= end
            end = max(end, stop)
    return low, high + len(_UNDERSCORED.findall(text))


def _emphases(line: str) -> Iterator[tuple[int, int]]:
    """Places of what stands between like runs of one to three stars that touch it."""
    opened: dict[int, int] = {}
    for stars in re.finditer(r"(?<!\\)\*+", line):
        start, stop = stars.span()
        before, after = line[max(start - 1, 0) : start], line[stop : stop + 1]
        if before.strip() and stop - start in opened and not after.isalnum():
            began = opened.pop(stop - start)
            if re.search(r"[^\W_]", line[began:start]):
                yield began, stop
        elif after.strip() and not before.isalnum() and stop - start <= 3:
            opened[stop - start] = start


def placeholders(text: str) -> Count:
    """[like this]; at most also links, numbers and the same once more."""
    every = re.findall(r"\[([^\[\]\n]*)\](\(?)", text)
    said = {
        inner.strip().lower()
        for inner, link in every
        if not link and any(map(str.isalpha, inner)) and inner.strip() not in ("x", "X")
    }
    return len(said), sum(any(map(str.isalnum, inner)) for inner, _ in every)
