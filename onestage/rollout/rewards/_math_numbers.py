"""Numbers, exactly: decimals are read as fractions, and irrational values must agree in many digits."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

DIGITS = 50
_CLOCK = re.compile(r"\s*(\d{1,2})\s*:\s*([0-5]\d)\s*(?:\b([aApP])\s*[mM]\s*)?")
_SET = re.compile(r"\\text\s*\{([^{}]*)\}|\\[, ;~]")
_TERMS = re.compile(r"\s*\d+(?:\.\d+)?(?:\s*:\s*\d+(?:\.\d+)?)+\s*")
MOST_BITS = 100_000
"""Of a power that is written out."""


def prepared(text: str) -> str:
    """LaTeX that is read exactly: decimals, percents and mixed numbers as fractions."""
    text = re.sub(r"\\([dt]?frac)\s*(\d)(\d)(?!\d)", r"\\\1{\2}{\3}", text.strip())
    percent = re.fullmatch(r"(.*?)\s*\\?%\s*", text, re.DOTALL)
    text = percent[1] if percent else text
    text = re.sub(r"(\d*)\.(\d*)\\overline\{(\d+)\}", _repeating, text)
    text = (
        re.sub(
            r"(?<![\d}\w])(\d+)\s*\\[dt]?frac\s*\{?(\d+)\}?\s*\{?(\d+)\}?",
            lambda f: f"\\frac{{{int(f[1]) * int(f[3]) + int(f[2])}}}{{{f[3]}}}",
            text,
        )
        if re.search(r"\d\s*\\[dt]?frac\s*(?:\{\d+\}\s*\{\d+\}|\d\d)(?![\d])", text)
        else text
    )
    text = re.sub(
        r"(?<![\d.])(\d*)\.(\d+)(?![\d.])",
        lambda f: f"\\frac{{{int((f[1] or '0') + f[2])}}}{{{10 ** len(f[2])}}}",
        text,
    )
    text = re.sub(r"(?<![\w.])0+(?=\d)", "", text)
    text = re.sub(r"^\s*\+\s*", "", text)
    return f"\\frac{{{text}}}{{100}}" if percent else text


def _repeating(found: re.Match[str]) -> str:
    whole, head, again = found[1] or "0", found[2], found[3]
    value = Fraction(int(whole + head), 10 ** len(head))
    value += Fraction(int(again), (10 ** len(again) - 1) * 10 ** len(head))
    return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"


def clocks(left: str, right: str) -> tuple[bool | None] | None:
    """Times of day, by the clock of twelve or without: 1:00 is not 12:00, though quotients may be. None
    where one of both is no time; where both could be ratios, and as such are equal, nobody said."""
    bare = [re.sub(r"[.{}]", "", _SET.sub(r"\1 ", text)) for text in (left, right)]
    found = [_CLOCK.fullmatch(text) for text in bare]
    if not (found[0] and found[1]):
        return None
    (hour, minute, half), (hour2, minute2, half2) = (one.groups() for one in found if one)
    half, half2 = ((one or "").lower() for one in (half, half2))
    if (int(hour), minute) == (int(hour2), minute2):
        # A half of the day that nobody asked for is more, one that is left out is less.
        return (None if half2 and not half else half == half2 or not half2,)
    halves = half or half2 or "0" in (minute[0], minute2[0])
    alike = int(hour) * int(minute2) == int(hour2) * int(minute)
    return (None if alike and not halves else False,)


def ratios(left: str, right: str) -> bool | None:
    """Whether two ratios are the same, term by term; None where one of both is none."""
    if not (_TERMS.fullmatch(left) and _TERMS.fullmatch(right)):
        return None
    ours, theirs = ([Fraction(term) for term in text.split(":")] for text in (left, right))
    if len(ours) != len(theirs) or not all(theirs) or not all(ours):
        return ours == theirs
    return len({a / b for a, b in zip(ours, theirs, strict=True)}) == 1


def equal(left: Any, right: Any) -> bool | None:
    """Whether two values of sympy are the same; None where that cannot be computed."""
    import sympy

    try:
        return _equal(*(sympy.sympify(value) for value in (left, right)))
    except TypeError:  # gcd and mod of sympy, which cannot be ordered
        return None


def _equal(left: Any, right: Any) -> bool | None:
    import sympy

    exact = _rational(left), _rational(right)
    if None not in exact:
        return exact[0] == exact[1]
    if left.has(sympy.zoo, sympy.nan) or right.has(sympy.zoo, sympy.nan):
        return None  # 1/0 and 2/0
    if left.free_symbols or right.free_symbols:
        return bool(sympy.simplify(left - right) == 0)
    if left.has(sympy.oo) or right.has(sympy.oo):
        return bool(left == right)
    near = [value.evalf(DIGITS, maxn=10_000) for value in (left, right)]
    gap, size = abs(near[0] - near[1]), max(abs(near[0]), abs(near[1]))
    if not gap.is_Float and not gap.is_Integer and not gap.is_Rational:
        return None
    return bool(gap <= size * sympy.Float(10) ** (5 - DIGITS))


def _rational(value: Any) -> Fraction | None:
    """The value of sums, products and whole powers of rational numbers; None for others."""
    if value.is_Rational:
        return Fraction(int(value.p), int(value.q))
    parts = [_rational(part) for part in value.args] if value.is_Add or value.is_Mul else []
    if parts and None not in parts:
        total = parts[0]
        for part in parts[1:]:
            total = total + part if value.is_Add else total * part  # type: ignore[operator]
        return total
    if value.is_Pow:
        base, power = _rational(value.args[0]), _rational(value.args[1])
        if base is None or power is None or power.denominator != 1 or (not base and power < 0):
            return None
        size = max(abs(base.numerator), base.denominator).bit_length() * abs(power.numerator)
        return base**power.numerator if size < MOST_BITS else None
    return None
