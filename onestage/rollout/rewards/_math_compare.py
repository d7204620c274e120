r"""Are two mathematical answers the same, exactly?

math-verify reads LaTeX and knows many forms, and forgives much: it passes over words, takes letters for
factors that commute, sets for lists, and values that are near. So it reads here, and what it read is
compared by rules that say yes only where that is certain:

- words and units first (`_math_words`); texts and strings of letters as texts;
- lists, tuples, sets and intervals part by part, brackets and repeats included;
- numbers exactly: decimals are fractions, and irrational ones must agree in fifty digits.

`same` is True, False, or None where nobody could say (a base left out, percent or not): that is not
judged.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from onestage.rollout.rewards._markup import characters, unmarked
from onestage.rollout.rewards._math_letters import factors
from onestage.rollout.rewards._math_numbers import equal, prepared
from onestage.rollout.rewards._math_parts import bracket, coordinates, each, settled, split
from onestage.rollout.rewards._math_spelling import misordered, plain
from onestage.rollout.rewards._math_words import (
    FUNCTIONS,
    JOINING,
    NAMING,
    POWERS,
    quantity,
    taken_out,
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
_UNSURE = frozenset("percent minus most root probably likely guess perhaps doubt".split())
_WORKED = re.compile(r"\\(?:int|sum|prod|binom|lim|lfloor|lceil|dbinom|tbinom|choose)(?![a-z])")


def same(final: str, gold: str, read: Read, verify: Verify) -> bool | None:
    """Whether a final answer is the right one."""
    if re.fullmatch(r"\s*\d+\s*:\s*\d+\s*", gold):
        final = re.sub(r"\\text\s*\{\s*to\s*\}|(?<=\d)\s+to\s+(?=\d)", ":", final)
    if misordered(final, gold):
        # Names that stand as usual (m, b) or not (y, x): right or wrong, nobody said.
        return None if same(plain(final), plain(gold), read, verify) else False
    final, gold = plain(final), plain(gold)
    if _spelled(final) == _spelled(gold):
        return True
    if _swapped(final, gold):
        return None  # yx for xy: a product or a word, nobody said
    letters = _as_letters(final, gold)
    if letters is not None:
        return letters
    final, gold = factors(final), factors(gold)
    sizes = quantity(final), quantity(gold)
    if sizes[0] and sizes[1]:
        return sizes[0] == sizes[1]
    ours, theirs = taken_out(final), taken_out(gold)
    if ours.changing != theirs.changing:
        return None if _UNSURE & set(ours.words) else False
    if NAMING & set(ours.words) or (ours.units and set(ours.units) <= POWERS):
        return None  # page 12, 12 squared
    units = ours.units, theirs.units
    if all(units) and "unit" not in (*units[0], *units[1]) and units[0] != units[1]:
        return False
    if ours.divided and theirs.divided and ours.divided != theirs.divided:
        return False  # h/km for km/h
    if ours.changing and ours.words != theirs.words:
        return False
    return _Compared(read, verify).parts(
        _joined(ours.core, ours), _joined(theirs.core, theirs), (ours.scale, theirs.scale)
    )


def _joined(core: str, worded: Any) -> str:
    """`or` and `and` between answers are commas; other words that stood between two things stay bars."""
    if any(word in JOINING for word in worded.words) and not _inequality(core):
        return re.sub(r"(?:\s*\u2223\s*)+", ",", core)
    return core


def _inequality(text: str) -> bool:
    return re.search(r"[<>]|\\[lg](?:e|eq|t)(?![a-z])", text) is not None


def _spelled(text: str) -> str:
    """A text as it is written, without what is mere setting."""
    text = re.sub(r"\\(?:left|right|displaystyle|limits)(?![a-z])|\\[!]", "", unmarked(text))
    text = re.sub(r"\\[dt]frac", r"\\frac", text)
    text = re.sub(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\s*\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"\\(?:begin|end)\{[bpB]?matrix\}", "M", text)
    text = re.sub(r"\s|~|\\ ", " ", text)
    if re.search(r"\d \d", text) and not re.fullmatch(r"\D*\d{1,3}(?: \d{3})+\D*", text.strip()):
        text = re.sub(r"(?<=\d) +(?=\d)", "|", text)  # 1 2 is not 12
    text = re.sub(r"(?<=[ap])\.\s?m\.?(?=\W|\Z)", "m", text.casefold())
    return text.replace(" ", "").rstrip(".")


def _swapped(final: str, gold: str) -> bool:
    both = _lettered(final), _lettered(gold)
    few = all(re.fullmatch("[a-z]{2,4}", text) for text in both)
    return few and sorted(both[0]) == sorted(both[1])


def _as_letters(final: str, gold: str) -> bool | None:
    """Answers that are words, choices or strings of letters are texts; None for other answers."""
    ours, theirs = (re.sub(r"^\\(?:angle|triangle)\s*", "", _lettered(t)) for t in (final, gold))
    choice = re.fullmatch(r"\(?([A-J])\)?", theirs)
    picked = re.match(r"\(?([A-J])\)?(?:$|[\s.:)\\])", ours)
    marked = ours[:1] == "(" or len(ours) <= 3 or "\\" in ours or re.match(r"[A-J][.:)]", ours)
    if choice and picked and marked:
        others = set(re.findall(r"\(?\b([A-J])\b\)?", ours)) - {picked[1]}
        if others and re.search(r"\b(?:or|and)\b|[,/]", ours):
            return False
        return picked[1] == choice[1]
    pattern = r"[A-Za-z]{2,}|\d*[A-Z][0-9A-Z]+|[0-9A-F]*[A-F][0-9A-F]*"
    if re.fullmatch(pattern, theirs) and re.fullmatch(pattern, ours):
        if theirs in FUNCTIONS or (theirs.isupper() == ours.isupper() and theirs != ours):
            return None if len(theirs) == 2 and theirs.islower() else False
        return ours.casefold() == theirs.casefold()
    return None


def _lettered(text: str) -> str:
    text = re.sub(r"\\(?:text|textbf|mathrm|mathbf|mbox)\s*\{([^{}]*)\}", r"\1", characters(text))
    text = re.sub(r"\\ ", " ", text).strip(" .")
    return re.sub(r"^(?:on|an?|the) (?=[A-Za-z]+$)", "", text)


class _Compared:
    def __init__(self, read: Read, verify: Verify) -> None:
        self.read, self.verify = read, verify

    def parts(self, final: str, gold: str, scales: tuple[int, int] = (1, 1)) -> bool | None:
        """Lists and brackets first; what has neither is compared as a value."""
        final, gold = settled(final), settled(gold)
        ours, theirs = each(final), each(gold)
        if _WORKED.search(final) and not _WORKED.search(gold):
            return None if re.search(r"\\l(?:floor|ceil)", final) else False
        if _sets_of_numbers(gold) or _sets_of_numbers(final):
            return self._ranges(final, gold)
        listed = (bracket(final), bracket(gold))
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
            return self._lists(ours, theirs, ordered=listed[0] != "\\{")
        if not all(listed) and len(ours) == len(theirs) == 1:
            # (5) or {5} for 5: in brackets for clarity, or a set?
            return None if self.parts(ours[0], theirs[0]) else False
        if set(listed) == {"", "\\{"}:
            return self._lists(ours, theirs, ordered=False)
        if "" in listed and self._lists(ours, theirs, ordered=True):
            return None
        return False

    def _lists(self, ours: list[str], theirs: list[str], ordered: bool) -> bool | None:
        if len(ours) != len(theirs):
            return False
        if ordered:
            return _all(self.parts(a, b) for a, b in zip(ours, theirs, strict=True))
        shuffled = _all(self.parts(a, b) for a, b in zip(ours, theirs, strict=True)) is not True
        left = list(theirs)
        for one in ours:
            match = next((other for other in left if self.parts(one, other) is True), None)
            if match is None:
                return False
            left.remove(match)
        # Of pairs and letters it is not said whether their order matters.
        certain = not shuffled or all(re.search(r"\d", one) and not bracket(one) for one in theirs)
        return True if certain else None

    def _ranges(self, final: str, gold: str) -> bool | None:
        """Intervals and inequalities: equal as texts were seen before, so as sets."""
        known = [self._range(text) for text in (final, gold)]
        if None in known:
            return None if self._reads_same(final, gold) else False
        return bool(known[0] == known[1])

    def _range(self, text: str) -> Any:
        import sympy

        pieces = []
        for piece in re.split(r"\u2223+|\\cup|,(?![^(\[]*[)\]])", text):
            if not piece.strip():
                continue
            without = re.split(r"\\(?:setminus|backslash)", piece)
            if len(without) == 2 and bracket(without[1]) == "\\{":
                left = self._range(without[0])
                taken = [self._one(each) for each in split(without[1].strip()[2:-2])]
                if left is None or None in taken:
                    return None
                pieces.append(left - sympy.FiniteSet(*taken))
                continue
            if re.fullmatch(r"\s*(?:\w\s*\\in\s*)?\\mathbb\s*\{?R\}?\s*", piece):
                pieces.append(sympy.S.Reals)
                continue
            bounds = re.fullmatch(r"\s*(\(|\[)(.+),(.+)(\)|\])\s*", piece)
            if bounds:
                low, high = (self._one(bounds[n]) for n in (2, 3))
                if low is None or high is None:
                    return None
                pieces.append(sympy.Interval(low, high, bounds[1] == "(", bounds[4] == ")"))
                continue
            found = self.read(prepared(piece))[:1]
            try:
                pieces.append(found[0].as_set())
            except (AttributeError, IndexError, NotImplementedError, ValueError, TypeError):
                return None
        return sympy.Union(*pieces) if pieces else None

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
            ratio = re.fullmatch(r"\s*\d+\s*:\s*\d+\s*", ours) and re.search(r"frac|/", theirs)
            return None if ratio else False
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
        values = [f[0] for f in found if f and not isinstance(f[0], str)]
        if len(values) < 2:
            return False
        if all(hasattr(value, "shape") for value in values):
            return values[0].shape == values[1].shape and all(map(equal, *values))
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


def _sets_of_numbers(text: str) -> bool:
    mixed = re.fullmatch(r"\(.*\]|\[.*\)", text.strip()) is not None
    return mixed or "\\infty" in text or "\\cup" in text or "\\mathbb" in text or _inequality(text)


def _bars(text: str) -> str:
    """Without the bars of an absolute value around something."""
    return re.sub(r"\|([^|]+)\|", r"(\1)", text)


def _apart(text: str) -> bool:
    """Whether two numbers stand side by side with nothing between them that could join them."""
    text = re.sub(r"\\begin\{.*\\end\{[a-z]*\}", "", text, flags=re.DOTALL)
    return re.search(r"\d\s*(?:\\[,;:! ]|\{\}|\s|'|\\%|~)+\s*\d", text) is not None


def _subscripts(text: str) -> list[str]:
    text = re.sub(r"\\log_(?:\{[^{}]*\}|.)", "", text)
    return sorted(found.strip("{}") for found in re.findall(r"_(\{[^{}]*\}|.)", text))


def _base(text: str) -> str:
    found = re.fullmatch(r"\s*[0-9A-F]+_\{?(\d+)\}?\s*", text)
    return found[1] if found else ""


def _number(value: Any) -> bool:
    return bool(getattr(value, "is_number", False))
