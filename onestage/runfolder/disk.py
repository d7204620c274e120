"""Files and folders that appear whole or not at all, reach the disk, and may be read by whom umask says.

That there is no room each library tells in its own way: Python by a number, safetensors by a class of
its own, torch by the line of C++ that failed. Here, where files are written, all of that is one error.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NO_ROOM_SAID = re.compile(
    r"No space left on device|Disk quota exceeded|File too large|os error (28|27|122)\b"
    r"|inline_container\.cc|PytorchStreamWriter failed|basic_ios::clear: iostream error"
)
"""By safetensors, arrow, and torch, which does not tell a full disk from others that fail to write."""
NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EROFS}
"""What file systems answer that know no such thing, of a folder above all."""
THREADS = 16
"""That wait for the disk."""
AGAIN = "what was there before is whole; make room, or choose another place, and run this again"


class DiskFullError(OSError):
    """No room to write something: what, and what to do. Nothing of it is left, and nothing else lost."""

    def __init__(self, place: Path | str, reason: str, then: str = AGAIN) -> None:
        super().__init__(f"the disk is full ({reason}): {place} could not be written; {then}")
        self.errno, self.place, self.reason = errno.ENOSPC, place, reason


def no_room(error: BaseException | None) -> str | None:
    """How an error, or one that it was raised from, says that there is no room; None where none does."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            return os.strerror(error.errno or errno.ENOSPC)
        # A ValueError may repeat a text of the user's.
        said = None if isinstance(error, ValueError) else NO_ROOM_SAID.search(str(error))
        if said:
            return said.group()
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None


def require_room(place: Path, needed: float, what: str) -> None:
    """Raise `DiskFullError` where the disk of a place that may not be there yet has no room for so many
    bytes of `what`, before anything is written."""
    held = next(folder for folder in (place, *place.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(held).free
    if free < 1.1 * needed:
        room = f"{free / 1e6:,.1f} MB free, {what} needs {needed / 1e6:,.1f} MB"
        raise DiskFullError(place, room)


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Whatever says inside that there is no room becomes `DiskFullError`."""
    try:
        yield
    except Exception as error:
        reason = no_room(error)
        if reason is None or isinstance(error, DiskFullError):
            raise
        raise DiskFullError(place, reason) from error


def draft_of(place: Path) -> Path:
    """A new hidden name beside a place: only within one file system is a replacement atomic."""
    return place.with_name(f".{place.name[:40]}-{token_hex(4)}")


@contextmanager
def whole_path(file: Path) -> Iterator[Path]:
    """An empty file to fill, which takes its place at the end, or leaves nothing."""
    if not file.parent.is_dir():
        raise FileNotFoundError(
            f"there is no folder {file.parent} to write {file.name} into; make it"
        )
    draft = draft_of(file)
    with writing(file):
        try:
            with draft.open("xb"):
                pass
            mode = draft.stat().st_mode
            yield draft
            with suppress(PermissionError):  # a file system without owners
                draft.chmod(mode)
            to_disk(draft)
            os.replace(draft, file)
            to_disk(file.parent)
        except BaseException:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
            raise


@contextmanager
def whole_file(file: Path) -> Iterator[BinaryIO]:
    """As `whole_path`, opened."""
    with whole_path(file) as draft, draft.open("wb") as opened:
        yield opened


def write_text(file: Path, text: str) -> None:
    """Write a file whole or not at all, onto the disk. Lone surrogates are written as escapes, as JSON
    has them."""
    with whole_file(file) as opened:
        opened.write(text.encode("utf-8", "backslashreplace"))


def _replace(draft: Path, folder: Path) -> None:
    if not os.path.lexists(folder):
        os.replace(draft, folder)
        return
    # A folder that holds files cannot be renamed over: the older one steps aside first.
    old = draft.with_name(draft.name + "-old")
    os.replace(folder, old)
    try:
        os.replace(draft, folder)
    except OSError:
        os.replace(old, folder)
        raise
    if old.is_symlink():
        old.unlink()
    else:
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def whole_folder(folder: Path, settle: Callable[[Path, Path], None] = _replace) -> Iterator[Path]:
    """An empty folder to fill, which takes its place at the end, or leaves nothing; an older one is
    replaced, and stays where anything fails. `settle`: how the draft takes its place."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_of(folder)
    with writing(folder):
        try:
            draft.mkdir()
            yield draft
            readable(draft)
            sync(draft)
            settle(draft, folder)
            to_disk(folder.parent)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise


def readable(folder: Path) -> None:
    """Give everything in a folder that was made here the permissions that the folder got: safetensors
    makes files for their owner alone."""
    mode = folder.stat().st_mode & 0o777
    for path in folder.rglob("*"):
        if not path.is_symlink():
            with suppress(PermissionError):
                path.chmod(mode if path.is_dir() else mode & 0o666)


def sync(folder: Path) -> None:
    """Wait until a folder and everything in it is on the disk."""
    # All at once: a disk takes as long for many small files as for one.
    with ThreadPoolExecutor(THREADS, "sync") as threads:
        list(threads.map(to_disk, [path for path in folder.rglob("*") if not path.is_symlink()]))
    to_disk(folder)


def to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
    finally:
        os.close(opened)
