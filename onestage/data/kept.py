"""What is kept between runs: whole or not there, made by one process at a time, checked when opened.

A folder is filled as a private draft, sealed (`files.json` holds the size and digest of each of its
files, and everything reaches the disk) and renamed into its place. Whoever opens it compares all bytes
with the seal: about a second for each gigabyte. One that is not as it was sealed is made anew, with a
line that says so.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from onestage.runfolder import Say
from onestage.runfolder.disk import whole_folder, whole_path
from onestage.runfolder.seal import damage, seal


@contextmanager
def drafted(place: Path) -> Iterator[Path]:
    """A private folder to fill, which is sealed and takes its place at the end, or leaves nothing.

    What is in its place (it was damaged) gives way. Where another process was faster, its folder stays.
    """
    with whole_folder(place, settle) as draft:
        yield draft
        seal(draft)


@contextmanager
def alone(place: Path, say: Say) -> Iterator[None]:
    """Wait until no other process makes what belongs in this place.

    The lock falls with the process that holds it. Where a file system has none, processes make the same
    thing twice, each in a draft of its own.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = os.open(place.with_name(f".{place.name}.lock"), os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        yield
        return
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{place.name}: waits for another run that makes it")
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            pass
        yield
    finally:
        os.close(file)


def usable(cache: Path, rooms: Sequence[str], say: Say) -> Path:
    """The cache where it can be written to, else a folder among the temporary ones, and a line.

    The same one for all processes of this user, who share what is in it as they would share the cache.
    """
    wrong = next((error for room in ("", *rooms) if (error := _unusable(cache / room))), None)
    if wrong is None:
        return cache
    name = hashlib.blake2b(str(cache.absolute()).encode(), digest_size=8).hexdigest()
    instead = Path(tempfile.gettempdir()) / f"onestage-{os.getuid()}-{name}"
    say(f"the cache cannot be used ({wrong}); {instead} is used instead")
    instead.mkdir(mode=0o700, exist_ok=True)
    return instead


def settle(draft: Path, place: Path) -> None:
    """Put a sealed folder in its place, where what is damaged gives way and what is whole stays."""
    try:
        os.replace(draft, place)
    except OSError:
        if damage(place) is None:
            shutil.rmtree(draft)  # another run made the same thing first
            return
        drop(place)
        os.replace(draft, place)


def drop(place: Path) -> None:
    """Take away a file or folder, whatever it is; OSError where that is not allowed."""
    if place.is_dir() and not place.is_symlink():
        # Renaming is at once, and allowed beside the place; removing what is in it may not be.
        aside = place.with_name(f".{place.name}-{token_hex(4)}")
        os.rename(place, aside)
        with suppress(OSError):
            aside.chmod(0o700)
        shutil.rmtree(aside, ignore_errors=True)
    else:
        place.unlink(missing_ok=True)


@contextmanager
def settled(place: Path) -> Iterator[Path]:
    """A private file to fill, which takes its place at the end, whatever is there, or leaves nothing."""
    with whole_path(place) as draft:
        yield draft
        if place.is_dir():
            drop(place)


def _unusable(folder: Path) -> str | None:
    """Why nothing can be kept in a folder, or None."""
    if folder.exists() and not folder.is_dir():
        return f"{folder} is no folder"
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        return f"{there} is no folder"
    if not os.access(there, os.R_OK | os.W_OK | os.X_OK):
        return f"no permission to write to {there}"
    return None
