"""What is wrong with one row, in one sentence. Reading turns these into counted refusals."""

from __future__ import annotations

import reprlib


class RowError(ValueError):
    """A row that cannot be trained on: the message says what was found and what is allowed.

    `tie`: a pair that prefers neither side, which is left out and counted, but no mistake of the user's.
    """

    def __init__(self, sentence: str, *, tie: bool = False) -> None:
        super().__init__(sentence)
        self.tie = tie


def shown(value: object) -> str:
    """`value` as an error message shows it: short, and printable whatever it holds."""
    return f"{type(value).__name__} {reprlib.repr(value)}"
