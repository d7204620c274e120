"""What lies in the cache, since when nobody has used it, and how it is taken away.

Everything there can be made again from what it was made of, so nothing is lost but the time. It grows
with every data set, tokenizer and limit that was tried, and a stream that arrives in portions leaves all
that have come.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from onestage.data.kept import drop

ROOMS = {
    "tokens": "encoded data",
    "reference": "log-probs",
    "optimum": "f*",
    "remote": "fetched files",
}
"""Folders of a cache. What worlds of studies keep there (`lab`) is not among them: it is not looked for
again by its content alone."""
DAY = 86400.0


class Kept(NamedTuple):
    """One thing that is kept."""

    room: str
    place: Path
    bytes: int
    idle: float
    """Days since it was made or found."""


def used(place: Path) -> None:
    """Note that something is used now."""
    with suppress(OSError):  # a cache that others may only read
        os.utime(place)


def kept_in(cache: Path) -> Iterator[Kept]:
    """All that is kept in a cache, and what runs that were killed have left half made."""
    now = time.time()
    for room in ROOMS:
        with suppress(FileNotFoundError, NotADirectoryError):
            for place in sorted((cache / room).iterdir()):
                if not place.name.endswith(".lock"):
                    yield _kept(room, place, now)


def remove(one: Kept) -> bool:
    """Take it away; whether that was allowed, and nobody has used it since it was looked at."""
    if _kept(one.room, one.place, time.time()).idle < one.idle:
        return False
    try:
        drop(one.place)
    except OSError:
        return False
    return True


def _kept(room: str, place: Path, now: float) -> Kept:
    size, last = 0, 0.0
    for path in (place, *(place.rglob("*") if place.is_dir() else ())):
        with suppress(OSError):  # another run may take it away meanwhile
            found = path.lstat()
            last = max(last, found.st_mtime)
            size += 0 if path.is_dir() else found.st_size
    return Kept(room, place, size, (now - last) / DAY)
