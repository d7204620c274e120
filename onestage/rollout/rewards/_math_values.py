r"""Two mathematical answers without words, compared: lists and brackets, ranges, ratios, values."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from onestage.rollout.rewards._math_numbers import equal, prepared, ratios
from onestage.rollout.rewards._math_parts import bracket, coordinates, each, names_of, settled
from onestage.rollout.rewards._math_ranges import (
    UnreadError,
    one_number,
    same_sets,
    sets_of_numbers,
    too_many,
)

Read = Callable[[str], list[Any]]
"""LaTeX to what math-verify makes of it."""
Verify = Callable[[Any, Any], bool]

_NAMED = re.compile(
    r"^\s*(?:\\?[A-Za-z]+(?:_\{?\w{1,9}\}?)?'?(?:\^\{?-1\}?)?(?:\s*\(\s*[A-Za-z]\s*\))?|=)\s*=?(?<==)(?!=)\s*"
)
_RELATION = re.compile(
    r"[<>;?&:|\u2223]|//|\\(?:lt|gt|leq?|geq?|neq?|approx|sim(?:eq)?|equiv|cong|to|mapsto|vee|wedge|land"
    r"|lor|cup|cap|in|mid|colon|pm|mp|cdots|ldots|dots|overset|underset|stackrel|\\|q?quad|operatorname"
    r"|(?:long)?(?:left|right)*arrow|implies|iff)(?![a-z])|\\?Rightarrow|=|\\[; ]|\.\.\."
)
_CROSSED = re.compile(r"[A-Za-z}]\s*\\times\s*(?:\\[a-z]+\s*\{)?[A-Za-z]")
_WORKED = re.compile(r"\\(?:int|sum|prod|binom|lim|lfloor|lceil|dbinom|tbinom|choose)(?![a-z])")


class Values:
    """What was left of two answers when their words were taken out, part by part. joins: `and` or `or`,
    where one of them stands between the parts."""

    def __init__(self, read: Read, verify: Verify, joins: tuple[str, str] = ("", "")) -> None:
        self.read, self.verify, self.joins = read, verify, joins

    def parts(self, final: str, gold: str, scales: tuple[int, int] = (1, 1)) -> bool | None:
        """Lists and brackets first; what has neither is compared as a value."""
        final, gold = settled(final), settled(gold)
        ours, theirs = each(final), each(gold)
        if _WORKED.search(final) and not _WORKED.search(gold):
            return None if re.search(r"\\l(?:floor|ceil)", final) else False
        listed = (bracket(final), bracket(gold))
        ranges = sets_of_numbers(gold) or sets_of_numbers(final)
        if scales[0] != scales[1] and (ranges or any(listed) or max(len(ours), len(theirs)) > 1):
            return None  # 3, 5 million: which of them?
        if ranges:
            return self._ranges(final, gold)
        if any(listed):
            return self._bracketed(final, gold, listed)
        if len(ours) > 1 or len(theirs) > 1:
            return self._lists(ours, theirs, ordered=False)
        return self._value(final, gold, scales)

    def _bracketed(self, final: str, gold: str, listed: tuple[str, str]) -> bool | None:
        ours, theirs = (
            each(text[len(mark) : -len(mark)] if mark else text)
            for text, mark in zip((final, gold), listed, strict=True)
        )
        if listed == ("", "(") and len(ours) == len(theirs) > 1 and coordinates(ours):
            return self._lists(ours, theirs, ordered=True)
        if listed[0] == listed[1]:
            return self._lists(ours, theirs, ordered=listed[0] != "\\{", sets=True)
        if not all(listed) and len(ours) == len(theirs) == 1:
            # (5) or {5} for 5: in brackets for clarity, or a set?
            return None if self.parts(ours[0], theirs[0]) else False
        if set(listed) == {"", "\\{"}:
            return self._lists(ours, theirs, ordered=False)
        if "" in listed and self._lists(ours, theirs, ordered=True):
            return None
        return False

    def _lists(
        self, ours: list[str], theirs: list[str], ordered: bool, sets: bool = False
    ) -> bool | None:
        if len(ours) != len(theirs):
            return False
        if ordered:
            return _all(self.parts(a, b) for a, b in zip(ours, theirs, strict=True))
        shuffled = _all(self.parts(a, b) for a, b in zip(ours, theirs, strict=True)) is not True
        named = names_of(theirs)
        if shuffled and len(set(named)) == len(theirs) and not names_of(ours):
            return None if self._lists(ours, [n.split("=", 1)[1] for n in theirs], False) else False
        left = list(theirs)
        for one in ours:
            match = next((other for other in left if self.parts(one, other) is True), None)
            if match is None:
                return False
            left.remove(match)
        # Of pairs and letters it is not said whether their order matters.
        certain = (
            not shuffled
            or sets
            or all(re.search(r"\d", one) and not bracket(one) for one in theirs)
        )
        return True if certain else None

    def _ranges(self, final: str, gold: str) -> bool | None:
        """Intervals and inequalities: equal as texts were seen before, so as sets."""
        if one_number(final) or one_number(gold):
            return False
        if too_many(final) or too_many(gold):
            return None
        try:
            return same_sets((final, gold), self.joins, self._one)
        except UnreadError:
            return None if self._reads_same(final, gold) else False

    def _one(self, text: str) -> Any:
        found = self.read(prepared(text))[:1]
        return found[0] if found and not isinstance(found[0], str) else None

    def _beyond_one(self, text: str) -> bool:
        value = self._one(text)
        return _number(value) and bool(abs(value) > 1)

    def _value(self, final: str, gold: str, scales: tuple[int, int]) -> bool | None:
        names = [found and found[0] for found in map(_NAMED.match, (final, gold))]
        if "=" in final and "=" in gold and names[0] != names[1]:
            return self._reads_same(final, gold)
        ours, theirs = _NAMED.sub("", final), _NAMED.sub("", gold)
        ratio = ratios(ours, theirs)
        if ratio is not None:
            return ratio
        if _marks(ours) != _marks(theirs):
            return False
        if _CROSSED.search(ours) and _CROSSED.search(theirs):
            return None  # of two vectors the order counts, and they were not alike as texts
        if re.search(r"\d\s*'", ours) and "'" not in theirs:
            return None
        sides = ours.split("=")
        if len(sides) > 1 and "=" not in theirs:
            chain = [self._value(side, theirs, scales) for side in sides if side.strip()]
            return bool(chain) and set(chain) == {True}  # 3 + 4 = 7
        relations = len(_RELATION.findall(_bars(ours))), len(_RELATION.findall(_bars(theirs)))
        if ":" in theirs and ":" not in ours:
            theirs, relations = theirs.replace(":", "/"), (relations[0], relations[1] - 1)
        if relations[0] and not relations[1]:
            divided = re.fullmatch(r"\s*\d+\s*:\s*\d+\s*", ours) and re.search(r"frac|/", theirs)
            return None if divided else False
        if relations[1] and not relations[0]:
            return False
        if _apart(ours) and not _apart(theirs):
            return False
        if _subscripts(ours) != _subscripts(theirs):
            return (
                None
                if _base(ours) != _base(theirs) and not all(map(_base, (ours, theirs)))
                else False
            )
        if re.search(r"\d\s*\\[dt]?frac\s*\{?0", ours + "|" + theirs):
            return None
        if ("%" in ours) != ("%" in theirs):
            if self._exactly(ours, theirs, scales):
                return True
            ours, theirs = (re.sub(r"\\?%", "", text) for text in (ours, theirs))
            if not self._exactly(ours, theirs, scales):
                return False
            # Of what percentage was asked for, 20% and 20 say the same (as math-verify and the
            # normalisation of MATH have it); of a share, 0.2% is not 0.2.
            return True if self._beyond_one(theirs) else None
        return self._exactly(ours, theirs, scales)

    def _exactly(self, ours: str, theirs: str, scales: tuple[int, int]) -> bool | None:
        if re.match(r"\s*[-+]\s*[-+]", ours):
            return None
        found = [self.read(prepared(text))[:1] for text in (ours, theirs)]
        values = [_complex(f[0]) for f in found if f and not isinstance(f[0], str)]
        if len(values) < 2:
            return False
        if all(hasattr(value, "shape") for value in values):
            scaled = [value * scale for value, scale in zip(values, scales, strict=True)]
            return scaled[0].shape == scaled[1].shape and all(map(equal, *scaled))
        number = [_number(value) for value in values]
        if all(number):
            return equal(values[0] * scales[0], values[1] * scales[1])
        if any(number) or scales != (1, 1):
            return False
        return bool(self.verify(values[1:], values[:1]))

    def _reads_same(self, final: str, gold: str) -> bool:
        ours, theirs = self.read(prepared(final)), self.read(prepared(gold))
        return bool(ours and theirs and self.verify(theirs, ours))


def _all(found: Any) -> bool | None:
    verdicts = list(found)
    if False in verdicts:
        return False
    return None if None in verdicts else True


def _bars(text: str) -> str:
    """Without the bars of an absolute value around something."""
    return re.sub(r"\|([^|]+)\|", r"(\1)", text)


def _apart(text: str) -> bool:
    """Whether two numbers stand side by side with nothing between them that could join them."""
    text = re.sub(r"\\begin\{.*\\end\{[a-z]*\}", "", text, flags=re.DOTALL)
    return re.search(r"\d\s*(?:\\[,;:! ]|\{\}|\s|'|\\%|~)+\s*\d", text) is not None


def _marks(text: str) -> tuple[Any, ...]:
    """What stands at letters and makes others of them: primes, T for a transpose, (2) for a derivative,
    the -1 of an inverse."""
    primes = sum(len(found) for found in re.findall(r"(?<=[A-Za-z)}])(?:'|\^\{?\\prime\}?)+", text))
    raised = re.findall(r"\^\s*\{?\s*(?:T|\\top|\\intercal|\(\d+\))\s*\}?", text)
    inverse = re.findall(r"(?<![A-Za-z])[A-Za-z]\s*\^\s*\{-1\}\s*\(", text)
    return primes, sorted(re.sub(r"[\s{}]", "", one) for one in raised), len(inverse)


def _subscripts(text: str) -> list[str]:
    text = re.sub(r"\\log_(?:\{[^{}]*\}|.)", "", text)
    return sorted(found.strip("{}") for found in re.findall(r"_(\{[^{}]*\}|.)", text))


def _base(text: str) -> str:
    found = re.fullmatch(r"\s*[0-9A-F]+_\{?(\d+)\}?\s*", text)
    return found[1] if found else ""


def _complex(value: Any) -> Any:
    """With the imaginary unit for the letter i, as which it is read."""
    import sympy

    units = [one for one in getattr(value, "free_symbols", ()) if one.name == "i"]
    try:
        return value.subs(dict.fromkeys(units, sympy.I)) if units else value
    except (TypeError, ValueError, AttributeError):  # a relation: nothing is less than i
        return value


def _number(value: Any) -> bool:
    return bool(getattr(value, "is_number", False))
