"""A value that falls along half a cosine: of schedules, and of hints."""

from __future__ import annotations

import math


def cosine(high: float, low: float, gone: float) -> float:
    """`high` at the start, `low` where all of the way is `gone` (a part, in [0, 1])."""
    return low + (high - low) * (1 + math.cos(math.pi * gone)) / 2
