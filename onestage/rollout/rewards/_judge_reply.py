"""The score in a judge's reply, or None where a careful reader would not swear to it.

A judge is asked for one last line, `Score: 7` (or JSON, `{"score": 7}`), and that line is read, by the
scale that was declared. It may quote what it judges, which claims scores; it may tell its confidence,
give a range, or think aloud. So a mention of a score within a sentence is none, a denominator must be
the scale's own end, and what is not plainly one number is unreadable: counted, not guessed.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from onestage.rollout.rewards._markup import unmarked, without_thoughts

_NUMBER = r"[-+]?[0-9]+(?:\.[0-9]+)?"
_SCALE = (
    r"\([^()\n]{1,40}\)|out\s+of\s+[0-9.]+|(?:on|from|between)\b[^:=\n]{1,40}"
    r"|(?:for|of)\s+(?:the|this)\s+(?:response|answer|completion)"
)
_LABEL = re.compile(
    rf"""(?P<before>.*[.!?]["')]*[ ]+)?[\s#*{{-]*["'\[]?
    (?P<which>(?:[\w-]+\s+){{0,3}})score["'\]]?\s*(?:{_SCALE})?\s*[:=]+\s*(?P<value>.*)""",
    re.IGNORECASE | re.VERBOSE,
)
_PLAIN = frozenset("final overall total my the your so and thus therefore".split())
_DOUBT = frozenset(
    "confidence certainty probability scale range maximum minimum max min highest lowest best worst "
    "perfect possible ideal reference human initial previous prior no not "
    "says said claims claimed states stated writes wrote demands demanded asks asked tells told insists "
    "insisted requests requested instructs instructed contains quotes quoted wants".split()
)
"""Of scores that are not the judge's own, or not its last word."""
_QUOTES = re.compile(
    r"\b(?:ends?|claim\w*|sa(?:ys?|id)|stat(?:es?|ed)|writes?|wrote|quot\w+|demand\w*|ask(?:s|ed)?"
    r"|t(?:ells?|old)|contain\w*|include[sd]?|reads?|insist\w*|request\w*|instruct\w*)\b"
    r"(?:(?:\s+(?:with|that|me|us|the|for|to|give|write|say|following|line|words?)){0,4}|[^.!?]*:)\Z",
    re.IGNORECASE,
)
"""A line after which somebody else is speaking."""
_FULFILLED = re.compile(
    r"\b(?:what|everything|all|as)\b[^.!?:]*\b(?:asked|asks|requested|requests)(?:\s+(?:for|to))?\Z",
    re.IGNORECASE,
)
"""A line on what the response was asked for, behind which the judge speaks on."""
_FRACTION = (
    rf"(?P<number>{_NUMBER})(?:\s*(?:/|\(?(?:out\s+)?of)\s*(?P<whole>[0-9]+(?:\.[0-9]+)?)\)?)?"
)
_WRAPS = (("[[", "]]"), ("[", "]"), ("<", ">"), ("$", "$"), ('"', '"'), ("'", "'"), ("(", ")"))
_REMARK = re.compile(r"(?:\s*[.,;!]|\s+[-(]|\s+because\b)\s*(?P<said>.*)", re.DOTALL)
_SECOND_THOUGHTS = re.compile(
    r"[0-9]|\b(?:or|to|maybe|perhaps|but|not|would|wait|actually|instead|rather|revis\w*|score|one|two"
    r"|three|four|five|six|seven|eight|nine|ten|zero|half)\b",
    re.IGNORECASE,
)
_CHANGED = re.compile(
    r"\b(?:wait|actually|instead|revis\w*|reconsider\w*|correct(?:ed|ion)|change[ds]?)\b", re.I
)
_SIDE = re.compile(r"[-=*_\s]*|[^:\n]{1,30}:.{0,40}")
"""A line across the page, or another value with its name."""
LONGEST_LINE = 2000
"""Characters of a line, from its end, that are looked at."""
_UNIT = r"(?:\s+(?:points?|pts|stars?))?"


def parse(reply: str, score_range: tuple[float, float]) -> float | None:
    """The score that a judge's message ends with; None where there is none, it cannot be told, or it is
    out of range. Reasoning between think tags is not looked at."""
    # A judge that thinks aloud names scores that it does not mean.
    said = without_thoughts(reply).strip()
    found, score = _of_json(said, score_range)
    if not found:
        score = _of_lines(said, score_range)
    low, high = score_range
    return score if score is not None and low <= score <= high else None


def _of_json(said: str, score_range: tuple[float, float]) -> tuple[bool, float | None]:
    """Whether it ends in JSON, and the one score that stands in it."""
    text = said.removesuffix("```").rstrip()
    begins = [0, *(found.end() for found in re.finditer(r"```(?:json)?\s*\n|\n(?=\s*\{)", text))]
    for begin in begins[:1] + begins[-20:][::-1]:
        part = re.sub(r"\A```(?:json)?", "", text[begin:].strip()).strip()
        if part.startswith("{") and "}" not in part and re.search(r"[0-9.]\Z", part):
            return True, None  # half an object, whose number may go on
        if not part.startswith("{") or not part.endswith("}"):
            continue
        try:
            whole = json.loads(part, object_pairs_hook=_pairs)
        except (ValueError, RecursionError):
            continue
        scores = list(_scores(whole))
        return True, _value(str(scores[0]), score_range) if len(scores) == 1 else None
    return False, None


class _Pairs(list[Any]):
    """Of an object, doubled keys and all."""


def _pairs(pairs: list[tuple[str, Any]]) -> _Pairs:
    return _Pairs(pairs)


def _scores(value: Any) -> list[Any]:
    if isinstance(value, _Pairs):
        found = []
        for key, each in value:
            own = key.strip().lower() == "score" and not isinstance(each, (list, bool))
            found += [each] if own else _scores(each)
        return found
    return [score for each in value for score in _scores(each)] if type(value) is list else []


def _of_lines(said: str, score_range: tuple[float, float]) -> float | None:
    lines = [line.strip() for line in _joined(said).split("\n") if line.strip()]
    fenced = False
    while lines and re.fullmatch(r"`{3,}\w*", lines[-1]):
        lines.pop()
        fenced = True
    heads = [_head(line) for line in lines]
    plain = [n for n, head in enumerate(heads) if head and head[0] <= _PLAIN]
    if not plain:
        return _named(lines, heads, score_range)
    last = plain[-1]
    score = _told(heads, last, score_range)
    if last == len(lines) - 1:
        above = lines[last - 1][-LONGEST_LINE:] if last else ""
        if _QUOTES.search(above) and not _FULFILLED.search(above):
            return None
        quoted = len(plain) > 1 and (fenced or lines[last - 1].endswith(":"))
        return None if quoted and score != _told(heads, plain[-2], score_range) else score
    after = lines[last + 1 :]
    if all(_SIDE.fullmatch(line) for line in after):
        return score
    # A score first, and the reasons behind it.
    return score if last == 0 and not any(map(_CHANGED.search, after)) else None


def _joined(said: str) -> str:
    """A number may stand below its name."""
    plain = "\n".join(unmarked(line) for line in said.split("\n"))
    return re.sub(
        r"(?im)^([^\w\n]*(?:\w+ ){0,2}score[ \t]*[:=]?)\s*\n\s*(?=[^\w\n]*[0-9])", r"\1: ", plain
    )


def _head(line: str) -> tuple[frozenset[str], str] | None:
    """What sort of score a line names, and what it says of it. Of a sentence that goes on, a quotation
    or a citation: None."""
    found = _LABEL.fullmatch(line[-LONGEST_LINE:])
    if not found or line.startswith(">"):
        return None
    before = found["before"] or ""
    if any(before.count(mark) % 2 for mark in '"') or re.search(r"(?:^|\s)'[^']*\Z", before):
        return None
    return frozenset(found["which"].lower().split()), found["value"]


def _told(
    heads: list[tuple[frozenset[str], str] | None], place: int, score_range: tuple[float, float]
) -> float | None:
    head = heads[place]
    return None if head is None else _value(head[1], score_range)


def _named(
    lines: list[str],
    heads: list[tuple[frozenset[str], str] | None],
    score_range: tuple[float, float],
) -> float | None:
    """`Helpfulness score: 7`, where it is the only score and the last line."""
    named = [n for n, head in enumerate(heads) if head and not head[0] & _DOUBT]
    if len(named) != 1 or not all(_SIDE.fullmatch(line) for line in lines[named[0] + 1 :]):
        return None
    return _told(heads, named[0], score_range)


def _value(text: str, score_range: tuple[float, float]) -> float | None:
    """One number, with the scale's own end as its denominator, and no second thoughts."""
    text = (
        text.strip().rstrip("},").rstrip() if text.rstrip().endswith(("}", ",")) else text.strip()
    )
    for left, right in (*_WRAPS, ("", "")):
        closed = rf"\s*{re.escape(right)}" if right else ""
        inner = rf"{re.escape(left)}\s*{_FRACTION}{closed}{_UNIT}"
        found = re.match(rf"{inner}(?P<rest>(?![\w%]|[.,][0-9]).*)\Z", text, re.DOTALL)
        if found:
            break
    else:
        return None
    whole, rest = found["whole"], found["rest"]
    # A slash or "out of" behind brackets: [[7]]/10
    outer = re.match(r"\s*(?:/|\(?out of)\s*([0-9]+(?:\.[0-9]+)?)\)?(?![\w%]|[.,][0-9])", rest)
    if outer and whole is None:
        whole, rest = outer[1], rest[outer.end() :]
    if whole is not None and float(whole) != score_range[1]:
        return None
    remark = _REMARK.fullmatch(rest) if rest.strip() else None
    if rest.strip() and (not remark or _SECOND_THOUGHTS.search(remark["said"])):
        return None
    score = float(found["number"])
    return score if math.isfinite(score) else None
