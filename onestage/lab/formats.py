"""The instruction language: an answer's shape, alone or opened or closed with a given word.

Shapes and wraps combine freely; some combinations are kept out of all feedback, to see whether the
instructions were learnt as parts. Every rule is checkable to the letter.
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
    "twice": ("twice", "{0} {0}"),
    "thrice": ("thrice", "{0} {0} {0}"),
}
"""Name -> (what it is called, form of the answer)."""
WRAPS: dict[str, tuple[str, str]] = {
    "alone": ("", "{0}"),
    "start": ("starting with {1}", "{1} {0}"),
    "end": ("ending with {1}", "{0} {1}"),
}
KEPT_OUT = {("json", "end"), ("brackets", "start"), ("twice", "end"), ("thrice", "start")}
TAGS = ("hello", "listen", "indeed", "cheers")
"""Words that answers are opened and closed with."""


@dataclass(frozen=True, slots=True)
class Format:
    """One instruction; `tag` is unused where the shape stands alone."""

    shape: str
    wrap: str
    tag: str

    @property
    def name(self) -> str:
        parts = (SHAPES[self.shape][0], WRAPS[self.wrap][0].format("", self.tag))
        return " ".join(part for part in parts if part)

    @property
    def rule(self) -> str:
        return f"answer {self.name}."

    def apply(self, value: str) -> str:
        """The answer that obeys."""
        return WRAPS[self.wrap][1].format(SHAPES[self.shape][1].format(value), self.tag)

    def obeyed(self, values: Sequence[str], response: str) -> bool:
        """Whether the whole response is one of the values in this form. True or not is not asked."""
        return any(response.split() == self.apply(value).split() for value in values)


def combinations(seen: bool) -> list[tuple[str, str]]:
    """(shape, wrap) pairs that feedback shows, or those it never shows."""
    return [pair for pair in product(SHAPES, WRAPS) if (pair in KEPT_OUT) != seen]
