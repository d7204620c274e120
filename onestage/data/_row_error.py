"""What is wrong with one row, in one sentence. Reading turns these into counted refusals."""

from __future__ import annotations

import reprlib


class RowError(ValueError):
    """A row that cannot be trained on: the message says what was found and what is allowed.

    `tie`: a pair that prefers neither side; `unlabelled`: a response whose feedback is null. Both are
    left out and counted, but no mistakes of the user's.
    """

    def __init__(self, sentence: str, *, tie: bool = False, unlabelled: bool = False) -> None:
        super().__init__(sentence)
        self.tie = tie
        self.unlabelled = unlabelled


def shown(value: object) -> str:
    """`value` as an error message shows it: short, and printable whatever it holds."""
    return f"{type(value).__name__} {reprlib.repr(value)}"
