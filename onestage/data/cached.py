"""What lies in the cache, since when nobody has used it, and how it is taken away.

Everything there can be made again from what it was made of, so nothing is lost but the time. It grows
with every data set, tokenizer and limit that was tried, and a stream that arrives in portions leaves all
that have come.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
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
MARK = ".run-"
"""How the names of files begin in which a run says what it may open again."""


class Kept(NamedTuple):
    """One thing that is kept."""

    room: str
    place: Path
    bytes: int
    idle: float
    """Days since it was made or found."""
    held: bool = False
    """Whether a run that goes on may open it again (`InUse`)."""


class InUse:
    """What this process may open again at any time, however long that is: nobody takes it away for as
    long as this lives.

    What is open anyway stays readable when it is taken away, and needs none of this. The names stand in
    a file of the room that is locked, so a mark falls with the process that made it.
    """

    def __init__(self) -> None:
        self._files: dict[Path, int] = {}

    def add(self, place: Path) -> None:
        with suppress(
            OSError
        ):  # a cache that others may only read: then they remove nothing, either
            room = place.parent
            if room not in self._files:
                self._files[room] = _marked(room)
            os.write(self._files[room], f"{place.name}\n".encode())

    def __del__(self) -> None:
        for file in self._files.values():
            os.close(file)


def _marked(room: Path) -> int:
    """A new file of marks, open and locked before anybody can take it for one that was left behind."""
    draft = room / f".new-{token_hex(8)}.lock"
    file = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    with suppress(OSError):  # a file system without locks
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.replace(draft, draft.with_name(draft.name.replace(".new-", MARK)))
    return file


def _held_in(room: Path) -> set[str]:
    """Names of what runs that go on may open again; marks of others are cleared away."""
    found: set[str] = set()
    for mark in room.glob(f"{MARK}*.lock"):
        # Over NFS only who may write can lock; of somebody else's one may only look.
        mode = "r+" if os.access(mark, os.W_OK) else "r"
        with suppress(OSError), mark.open(mode) as opened:
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                mark.unlink()
            except BlockingIOError:
                found.update(opened.read().split())
    return found


def used(place: Path) -> None:
    """Note that something is used now."""
    with suppress(OSError):  # a cache that others may only read
        os.utime(place)


def kept_in(cache: Path) -> Iterator[Kept]:
    """All that is kept in a cache, and what runs that were killed have left half made."""
    now = time.time()
    for room in ROOMS:
        with suppress(FileNotFoundError, NotADirectoryError):
            held = _held_in(cache / room)
            for place in sorted((cache / room).iterdir()):
                if not place.name.endswith(".lock"):
                    yield _kept(room, place, now)._replace(held=place.name in held)


def remove(one: Kept) -> bool:
    """Take it away; whether that was allowed, no run that goes on may open it again, and nobody has used
    it since it was looked at."""
    if one.place.name in _held_in(one.place.parent):
        return False
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
