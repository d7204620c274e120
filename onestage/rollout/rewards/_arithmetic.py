"""Arithmetic in text: a parser of our own, because text of a model is never given to `eval`.

    sum     = product (("+" | "-") product)*
    product = signed (("*" | "/" | "//") signed)*          // only in Python's notation
    signed  = ("-" | "+")* power
    power   = atom ("**" signed)?                          only in Python's notation
    atom    = number | "(" sum ")"

Plain notation is exact, over fractions. Python's notation gives what Python would: ints, floats at a
division, and the same precedences; numbers that would fill the memory are refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

LONGEST = 2000
"""Characters of an expression."""
DEEPEST = 100
"""Of nested parentheses and signs."""
MOST_DIGITS = 40
"""Of a number as written."""
MOST_BITS = 4096
"""Of a whole number on the way, in Python's notation."""
_TOKEN = re.compile(r"[ \t\r\n\f]*(?:(\d+\.\d*|\.\d+|\d+)|(\*\*|//|[-+*/()]))", re.ASCII)
_SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-"})  # noqa: RUF001


class Unreadable(ValueError):
    """No arithmetic, or too much of it."""


@dataclass(frozen=True)
class Expression:
    value: Any
    """A `Fraction`; an int, float or complex in Python's notation; None where it has none (x / 0)."""
    numbers: tuple[Fraction, ...]
    """As they are written, from left to right."""


def plain(text: str) -> Expression:
    """Exact; `Unreadable` where it is no sum, or beyond the limits."""
    return _Parser(text.translate(_SIGNS), _exact, python=False).whole()


def python(text: str) -> Expression:
    """As Python would have it; `Unreadable` likewise."""
    return _Parser(text, _pythonic, python=True).whole()


class _Parser:
    def __init__(self, text: str, apply: Callable[[str, Any, Any], Any], *, python: bool) -> None:
        if len(text) > LONGEST:
            raise Unreadable(f"longer than {LONGEST} characters")
        self.apply, self.python = apply, python
        self.tokens = _tokens(text)
        self.place = 0
        self.depth = 0
        self.numbers: list[Fraction] = []

    def whole(self) -> Expression:
        value = self.sum()
        if self.place < len(self.tokens):
            raise Unreadable(f"{self.next()!r} out of place")
        return Expression(value, tuple(self.numbers))

    def next(self) -> str:
        return self.tokens[self.place] if self.place < len(self.tokens) else ""

    def take(self, *signs: str) -> str:
        found = self.next()
        if found not in signs or not found:
            return ""
        self.place += 1
        return found

    def sum(self) -> Any:
        value = self.product()
        while sign := self.take("+", "-"):
            value = self.calculate(sign, value, self.product())
        return value

    def product(self) -> Any:
        signs = ("*", "/", "//") if self.python else ("*", "/")
        value = self.signed()
        while sign := self.take(*signs):
            value = self.calculate(sign, value, self.signed())
        return value

    def signed(self) -> Any:
        if sign := self.take("-", "+"):
            self.go_down()
            value = self.signed()
            self.depth -= 1
            return self.calculate("-", 0, value) if sign == "-" else value
        value = self.atom()
        if self.python and self.take("**"):
            self.go_down()
            value = self.calculate("**", value, self.signed())
            self.depth -= 1
        return value

    def atom(self) -> Any:
        if self.take("("):
            self.go_down()
            value = self.sum()
            self.depth -= 1
            if not self.take(")"):
                raise Unreadable("a parenthesis is open")
            return value
        token = self.next()
        if not token or not (token[0].isdigit() or token[0] == "."):
            raise Unreadable(f"{token!r} where a number should be")
        if len(token) > MOST_DIGITS:
            raise Unreadable(f"a number of more than {MOST_DIGITS} digits")
        # Python refuses 012 and reads 00 as 0.
        if self.python and len(token) > 1 and re.fullmatch(r"0\d*[1-9]\d*", token):
            raise Unreadable("a leading zero")
        self.place += 1
        self.numbers.append(Fraction(token))
        return (float(token) if "." in token else int(token)) if self.python else Fraction(token)

    def calculate(self, sign: str, left: Any, right: Any) -> Any:
        return None if left is None or right is None else self.apply(sign, left, right)

    def go_down(self) -> None:
        self.depth += 1
        if self.depth > DEEPEST:
            raise Unreadable(f"nested deeper than {DEEPEST}")


def _tokens(text: str) -> list[str]:
    found, place, text = [], 0, text.rstrip(" \t\r\n\f")
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise Unreadable(f"{text[place : place + 20]!r} is no arithmetic")
        found.append(match.group(1) or match.group(2))
        place = match.end()
    return found


def _exact(sign: str, left: Fraction, right: Fraction) -> Fraction | None:
    if sign == "+":
        return left + right
    if sign == "-":
        return left - right
    if sign == "*":
        return left * right
    return left / right if right else None


def _pythonic(sign: str, left: Any, right: Any) -> Any:
    try:
        if sign == "**":
            return _power(left, right)
        value = {
            "+": lambda: left + right,
            "-": lambda: left - right,
            "*": lambda: left * right,
            "/": lambda: left / right,
            "//": lambda: left // right,
        }[sign]()
    except (ArithmeticError, TypeError):  # x / 0, an overflow, // of a complex number
        return None
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        raise Unreadable(f"a number of more than {MOST_BITS} bits")
    return value


def _power(left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int) and right > 0:
        # Reckoned before it is computed: 9**9**9 would fill the memory.
        size = right * (math.log2(abs(left)) if abs(left) > 1 else 0)
        if size > MOST_BITS:
            raise Unreadable(f"a number of more than {MOST_BITS} bits")
    return left**right
