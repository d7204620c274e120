r"""Sets of numbers: intervals, their unions, and inequalities, each of one variable.

`x > 1` is not `y > 1`, and `x > 0, y > 0` says something of both. Of one variable `and` is what both
say, `or` what either says; of a comma nobody said, so it is `and` where anything is left of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from onestage.rollout.rewards._math_parts import bracket, split

MOST_PIECES = 20
One = Callable[[str], Any]
"""LaTeX to the value that was read; None where none was."""
_BETWEEN = re.compile(r"\u2223+|\\(?:cup|lor|vee|land|wedge)(?![a-z])|,")
_REALS = re.compile(r"\s*(?:\w\s*\\in\s*)?\\mathbb\s*\{?R\}?\s*")
_INTERVAL = re.compile(r"\s*(\(|\[)([^,]+),([^,]+)(\)|\])\s*")
_VARIABLE = re.compile(r"(?<![A-Za-z])[A-Za-z](?![A-Za-z])(?:_\{?\w+\}?)?")
AND, OR = "and", "or"


class UnreadError(Exception):
    """What is no set of numbers, or none that could be computed."""


def inequality(text: str) -> bool:
    return re.search(r"[<>]|\\[lg](?:e|eq|t|eqslant)(?![a-z])", text) is not None


def sets_of_numbers(text: str) -> bool:
    mixed = re.fullmatch(r"\(.*\]|\[.*\)", text.strip()) is not None
    return mixed or "\\infty" in text or "\\cup" in text or "\\mathbb" in text or inequality(text)


def one_number(text: str) -> bool:
    """Whether a text is certainly no set: a number, or a sum of some."""
    return not re.search(
        r"[A-Za-z,\u2223=]", re.sub(r"\\(?:[dt]?frac|sqrt|pi|cdot)", "", text)
    ) and (not bracket(text))


def too_many(text: str) -> bool:
    """Whether a union has more pieces than are computed."""
    return len(_pieces(text)) > MOST_PIECES


def _pieces(text: str) -> list[str]:
    """What stands between words, unions and commas, outside of all brackets."""
    pieces, start = [], 0
    for found in _BETWEEN.finditer(text):
        before = text[start : found.start()].replace("\\{", "{").replace("\\}", "}")
        if sum(before.count(one) for one in "([{") <= sum(before.count(one) for one in ")]}"):
            pieces.append(text[start : found.start()])
            start = found.end()
    return [piece for piece in (*pieces, text[start:]) if piece.strip()]


def same_sets(texts: tuple[str, str], joins: tuple[str, str], one: One) -> bool | None:
    """Whether two texts say the same of the same variables; `UnreadError` where one was not read."""
    ours, theirs = (_sets(text, join, one) for text, join in zip(texts, joins, strict=True))
    if ours is None or theirs is None:
        raise UnreadError
    if len(ours) == len(theirs) == 1 and ours.keys() != theirs.keys():
        equal = [*ours.values()] == [*theirs.values()]
        # An interval has no name; of two names nobody said that they are one.
        return equal if "" in (*ours, *theirs) or not equal else None
    return dict(ours) == dict(theirs)


def _sets(text: str, join: str, one: One) -> Mapping[str, Any] | None:
    """What is said of each variable; of intervals, which name none, under the empty name."""
    import sympy

    said: dict[str, list[Any]] = {}
    for piece in _pieces(text):
        names = (
            set(_VARIABLE.findall(re.sub(r"\\[A-Za-z]+", " ", piece)))
            if inequality(piece)
            else {""}
        )
        found = _piece(piece, one)
        if found is None or len(names) != 1:
            return None
        said.setdefault(names.pop(), []).append(found)
    either = join == OR or "\\cup" in text or re.search(r"\\(?:lor|vee)(?![a-z])", text)
    sets = {}
    for name, pieces in said.items():
        both = sympy.Intersection(*pieces)
        if not name or either:
            sets[name] = sympy.Union(*pieces)
        elif both.is_empty is not True:
            sets[name] = both
        elif join == AND:
            return None  # nothing is both; whoever says so means something else
        else:
            sets[name] = sympy.Union(*pieces)
    return sets or None


def _piece(piece: str, one: One) -> Any:
    import sympy

    without = re.split(r"\\(?:setminus|backslash)", piece)
    if len(without) == 2 and bracket(without[1]) == "\\{":
        left = _piece(without[0], one)
        taken = [one(each) for each in split(without[1].strip()[2:-2])]
        return None if left is None or None in taken else left - sympy.FiniteSet(*taken)
    if _REALS.fullmatch(piece):
        return sympy.S.Reals
    bounds = _INTERVAL.fullmatch(piece)
    if bounds:
        low, high = (one(bounds[n]) for n in (2, 3))
        if not all(
            getattr(end, "is_extended_real", False) and end.is_number for end in (low, high)
        ):
            return None
        return sympy.Interval(low, high, bounds[1] == "(", bounds[4] == ")")
    found = one(piece)
    if isinstance(found, sympy.Set):
        return found
    if not isinstance(found, sympy.logic.boolalg.Boolean) or found.is_Symbol:
        return None
    try:
        return found.as_set()
    except (AttributeError, NotImplementedError, ValueError, TypeError):
        return None
