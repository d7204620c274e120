"""The instruction language: an answer's shape, and manners in which it is opened and closed.

Shapes and manners combine freely. Some pairs of a shape and a manner are kept out of all feedback, to
see whether the instructions were learnt as parts and what the base model knew of them survived. Every
rule is checkable to the letter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

SHAPES: dict[str, tuple[str, str]] = {
    "word": ("in one word", "{0}"),
    "json": ("in json", '{{"answer": "{0}"}}'),
    "brackets": ("in brackets", "[{0}]"),
    "stars": ("in stars", "* {0} *"),
    "dashes": ("in dashes", "- {0} -"),
    "heading": ("as a heading", "# {0}"),
    "twice": ("twice", "{0} {0}"),
    "thrice": ("thrice", "{0} {0} {0}"),
}
"""Name -> (what it is called, form of the answer)."""
OPENINGS = {"": "", "politely": "please", "loudly": "hey", "formally": "sir"}
CLOSINGS = {"": "", "gladly": "cheers", "firmly": "indeed", "warmly": "friend"}
"""Manner -> the word that an answer is opened or closed with. Not the same word: a model of two layers
that has to copy one does not learn to do so in a minute."""
KEPT_OUT = {
    "word": ("politely", "firmly"),
    "json": ("loudly", "warmly"),
    "brackets": ("formally", "gladly"),
    "stars": ("politely", "warmly"),
    "dashes": ("loudly", "gladly"),
    "heading": ("formally", "firmly"),
    "twice": ("politely", "gladly"),
    "thrice": ("loudly", "firmly"),
}
"""Shape -> the manners that feedback never shows it with."""


@dataclass(frozen=True, slots=True)
class Format:
    """One instruction."""

    shape: str
    opening: str = ""
    closing: str = ""

    @property
    def name(self) -> str:
        parts = (SHAPES[self.shape][0], self.opening, self.closing)
        return " ".join(part for part in parts if part)

    @property
    def rule(self) -> str:
        return f"answer {self.name}."

    @property
    def kept_out(self) -> bool:
        """Whether no feedback gives an example of it: only pretraining text speaks of it."""
        opening, closing = KEPT_OUT[self.shape]
        return self.opening == opening or self.closing == closing

    def apply(self, value: str) -> str:
        """The answer that obeys."""
        shaped = SHAPES[self.shape][1].format(value)
        parts = (OPENINGS[self.opening], shaped, CLOSINGS[self.closing])
        return " ".join(part for part in parts if part)

    def obeyed(self, values: Sequence[str], response: str) -> bool:
        """Whether the whole response is one of the values in this form. True or not is not asked."""
        return any(response.split() == self.apply(value).split() for value in values)


ALL = [Format(*parts) for parts in product(SHAPES, OPENINGS, CLOSINGS)]
SEEN = [form for form in ALL if not form.kept_out]
NEW = [form for form in ALL if form.kept_out]
