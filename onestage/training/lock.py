"""One run at a time in a run folder, and nothing half made of a run that was killed in it.

The lock is the system's (`flock` on the file `.lock`), so it falls with the process that holds it,
however that ends; who holds it stands in the file. Of a run's processes the main one holds it.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from onestage.runfolder import LOCK, OutputError, Say, stages_in

DRAFT = re.compile(
    r"\.(?P<whole>step-\d+|model|model_last|start|[a-z_]+\.(?:json|jsonl|yaml))-[a-z0-9_]{8}(?P<old>-old)?"
)
"""The names of what is written beside its place before it takes it (`runfolder.disk`), and of what
steps aside for it."""

SEEN_WITHIN = 60.0
"""Seconds after which a shared file system has told all nodes of a new file."""

_held: set[int] = set()
"""Descriptors of the locks that this process holds."""


@contextmanager
def held(folder: Path, say: Say) -> Iterator[None]:
    """Hold a run folder, which is made here, and clear away what a dead run left half made.

    Raises `OutputError` where another run holds it, or where nothing can be written.
    """
    fresh, file = not folder.exists(), _opened(folder)
    try:
        while not _take(file, folder, say):
            os.close(file)
            file = _opened(folder)
        _held.add(file)
        count = sum(map(_clear, _places(folder)))
        if count:
            say(f"removed {count} unfinished drafts that a killed run left in {folder}")
        yield
    finally:
        # Only a run that was killed leaves its lock behind, which is how that is known.
        if file in _held:
            (folder / LOCK).unlink(missing_ok=True)
            if fresh:  # a run that was refused leaves nothing
                with suppress(OSError):
                    folder.rmdir()
        _held.discard(file)
        os.close(file)


def holder_of(folder: Path) -> str:
    """Who holds a run folder, in words that no other has; "" where that cannot be read."""
    try:
        return (folder / LOCK).read_text(errors="replace")
    except OSError:
        return ""


def require_seen(folder: Path, holder: str) -> None:
    """Raise `OutputError` where this process does not see the run folder as its `holder` left it: where
    the disk is not the same, parts of a checkpoint would lie on each. That a lock is there says nothing:
    a run that was killed may have left one on this disk, too."""
    end = time.monotonic() + SEEN_WITHIN
    while holder_of(folder) != holder:
        if time.monotonic() > end:
            raise OutputError(
                f"{folder} on {socket.gethostname()} is not the main process's, and each rank writes "
                "its part of a checkpoint there; choose an --out on a disk that all nodes see"
            )
        time.sleep(0.2)


def _opened(folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise OutputError(f"cannot write to the output folder {folder}: {error}") from error


def _take(file: int, folder: Path, say: Say) -> bool:
    """Lock an open file; False where another one has taken its place since it was opened."""
    try:
        # On NFS the kernel makes a byte-range lock on the server of it; where that was mounted with
        # `nolock` or `local_lock`, only runs on the same machine see each other.
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        said = os.pread(file, 200, 0).decode(errors="replace")
        holder = said.partition("\n")[0].strip() or "another process"
        raise OutputError(
            f"{folder} is in use by {holder}; wait until that run has ended, or choose another --out"
        ) from error
    except OSError as error:  # a file system without locks
        say(f"{folder} cannot be locked ({error.strerror}): see to it that no other run uses it")
    try:
        if not os.path.samestat(os.fstat(file), (folder / LOCK).stat()):
            return False
    except FileNotFoundError:
        return False
    os.ftruncate(file, 0)
    mine = f"process {os.getpid()} on {socket.gethostname()}\nrun {token_hex(8)}\n"
    os.pwrite(file, mine.encode(), 0)
    with suppress(OSError):  # who looks from another node reads what has reached the disk
        os.fsync(file)
    return True


def _let_go() -> None:
    # A child that outlives a killed run would hold its lock on.
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_let_go)


def _places(folder: Path) -> Iterator[Path]:
    """Where a run, and each of its stages, writes."""
    for run in (folder, *stages_in(folder)):
        yield from (place for place in (run, run / "checkpoints") if place.is_dir())


def _clear(folder: Path) -> int:
    """Remove drafts; what had stepped aside for one that did not take its place goes back."""
    found = [(path, match) for path in folder.iterdir() if (match := DRAFT.fullmatch(path.name))]
    for path, match in found:
        whole = folder / match["whole"]
        if match["old"] and not whole.exists():
            os.replace(path, whole)
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    return len(found)
