"""Judges' replies, against the score that a careful reader takes (../shared/field/answers)."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from bench.trust.answers import FOLDER
from onestage.rollout.rewards.judge import parse

FILE = FOLDER / "judge_replies.jsonl"


def accepted(want: Any) -> set[float | None]:
    """What may be read where `7`, null, "none" or "7 or none" is wanted; None: unreadable."""
    parts = want.split(" or ") if isinstance(want, str) else [want]
    return {None if part in (None, "none") else float(part) for part in parts}


def readings() -> list[tuple[dict[str, Any], float | None]]:
    """Each reply with the score that is read from it, or None."""
    given = [json.loads(line) for line in FILE.read_text().split("\n") if line]
    return [(row, parse(row["reply"], tuple(row["scale"]))) for row in given]


def table() -> str:
    """How many replies are read right, are unreadable as they should be, and are not."""
    counts: Counter[str] = Counter()
    for row, score in readings():
        wanted = score in accepted(row["want"])
        counts[("unreadable" if score is None else "read") if wanted else "misread"] += 1
    return (
        "| replies | read right | unreadable, counted | misread |\n|---|---|---|---|\n"
        f"| {counts.total()} | {counts['read']} | {counts['unreadable']} | {counts['misread']} |"
    )
