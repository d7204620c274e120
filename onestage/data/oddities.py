"""What rows can be read with and hardly mean: counted, and said by `check` and every run.

Nothing is changed or left out for it, since somebody may mean it. Tables that went through a program
have words where there was nothing, lists and messages as that program prints them, letters of another
encoding, prompts that stand in their answers as well, and rows of several splits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from onestage.data.kinds import FEEDBACK
from onestage.data.messages import Turns
from onestage.data.record import Record
from onestage.data.stream import SPLIT

NOTHING = frozenset(("nan", "none", "null", "n/a", "#n/a", "na", "undefined", "<noinput>"))
"""What programs, and people, write for nothing."""

PRINTED = re.compile(
    r"\[\s*'.*'\s*,?\s*\]|\{\s*(['\"])(?:role|content|from|value)\1\s*:.*(?:content|role|value|from)\1\s*:.*\}",
    re.DOTALL,
)
"""A list of texts as Python prints it; one message as Python or JSON writes it."""

MISREAD = re.compile("\N{REPLACEMENT CHARACTER}|\u00c3[\u0080-\u00bf]|\u00e2\u20ac[^\\s\\w]")
"""What other encodings leave: bytes that were no text, UTF-8 that was read as cp1252 or latin-1."""

TURN_MARKS = re.compile(r"<extra_id_1>(?:User|Assistant)\b")
"""What NVIDIA's data sets (HelpSteer2) write between turns."""

ELSEWHERE = frozenset(("test", "validation", "valid", "val", "dev", "eval"))
"""Splits that nobody trains on."""

EMPTY = "what is said is a word for nothing (nan, None, N/A), as programs write empty cells"
LISTED = "the response is a list or a message as a program prints it, whose brackets are learned"
GARBLED = "letters of another encoding, or signs for bytes that were no text (see encoding)"
TWICE = "the response begins with its whole prompt, which then stands there twice"
MARKED = (
    "several turns stand in one text, between marks like <extra_id_1>User: `onestage convert` makes "
    "messages of them"
)
SPACES = "chosen and rejected differ in white space alone"
OTHERS = "the column `split` says that the row is not for training, and it is trained on"

LONG = 12
"""Characters of a prompt that nobody repeats by chance."""


def oddities(record: Record, row: Mapping[str, Any]) -> Iterator[str]:
    """Notes on what looks like a mistake. `row`: as it stands in its source."""
    plain = record.prompt if isinstance(record.prompt, str) else ""
    said = [text for text in record.completions if isinstance(text, str)]
    given = row.get("input")
    texts = [*(text for turns in record.completions for text in _texts(turns)), plain]
    if any(map(_nothing, texts)) or (isinstance(given, str) and _nothing(given)):
        yield EMPTY
    if any(text[:1] in ("[", "{") and PRINTED.fullmatch(text.strip()) for text in said):
        yield LISTED
    if any(not text.isascii() and MISREAD.search(text) for text in texts):
        yield GARBLED
    if TURN_MARKS.search(plain):
        yield MARKED
    asked = plain.strip()
    if len(asked) >= LONG and any(text.lstrip().startswith(asked) for text in said):
        yield TWICE
    if FEEDBACK[record.kind].paired and len(said) == 2 and said[0].split() == said[1].split():
        yield SPACES
    split = row.get(SPLIT)
    if isinstance(split, str) and split.strip().lower() in ELSEWHERE:
        yield OTHERS


def _texts(turns: Turns) -> Iterator[str]:
    if isinstance(turns, str):
        yield turns
        return
    yield from (turn["content"] for turn in turns if turn.get("content"))


def _nothing(text: str) -> bool:
    return len(text) < LONG and text.strip().lower() in NOTHING
