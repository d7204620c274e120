"""What a mistyped name probably was."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(given: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` with the nearest known word if one is near, and all that are known."""
    words = sorted(known)
    close = difflib.get_close_matches(given, words, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{hint} (known: {', '.join(words) or 'none'})"
