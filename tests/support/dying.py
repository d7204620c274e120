"""Jobs that end badly. Imports next to nothing: worker processes load it."""

from __future__ import annotations

import os


def die(number: int) -> int:
    if number == 1:
        os._exit(13)
    return number


def fail(number: int) -> int:
    raise ValueError(f"no {number}\nsecond line")
