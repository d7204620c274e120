"""A run's folder, looked at from outside while the run goes on; nothing here writes.

What grows is read on from where it ended, whole lines only: a line that is being written is read when it
is whole. Whether the run still goes on is told by its lock: who holds it stands in it, and only a run
that was killed leaves it behind.
"""

from __future__ import annotations

import os
import re
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from onestage.runfolder import LOCK, json_table, read_json

HOLDER = re.compile(r"process (\d+) on (.+)")
SKEW = 60.0
"""Seconds by which a machine's clock may have been set since it was started."""
TRACES = (LOCK, "recipe.yaml", "manifest.json", "metrics.jsonl", "stages.json", "checkpoints")
GROWING = ("metrics.jsonl", "samples.jsonl", "manifest.json", "data.json", "checkpoints", LOCK)
State = Literal["running", "finished", "interrupted", "stale"]


class Growing:
    """A file of JSON Lines that others write to."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.damaged = 0
        """Lines that were no JSON, and are left out."""
        self._read, self._number = 0, 0

    def new(self) -> tuple[list[dict[str, Any]], bool]:
        """The lines since the last look, and whether they are all lines from the first on: a run that
        goes on from a checkpoint writes its files anew, without what it will measure again."""
        try:
            file = self.file.open("rb")
        except FileNotFoundError:
            return [], False
        with file:
            found = os.fstat(file.fileno())
            anew = self._read > 0 and (found.st_ino != self._number or found.st_size < self._read)
            self._number = found.st_ino
            if anew:
                self._read = 0
            file.seek(self._read)
            whole = file.read().rpartition(b"\n")[0]
        self._read += len(whole) + 1 if whole else 0
        lines = [line for line in whole.split(b"\n") if line]
        tables = [table for line in lines if (table := json_table(line)) is not None]
        self.damaged += len(lines) - len(tables)
        return tables, anew


@dataclass(frozen=True)
class Standing:
    """Whether a run goes on, and how that is known."""

    state: State
    why: str
    silent: float
    """Seconds since anything was written into its folder."""


def standing(folder: Path, patience: float) -> Standing:
    """How a run stands. patience: seconds without a word after which one whose process cannot be seen
    from here is called stale."""
    here, lock = current(folder), folder / LOCK
    silent = max(0.0, time.time() - _last_written(folder, here))
    holder = _holder(lock)
    if holder is None:
        if finished(folder):
            gone = "" if (folder / "model").exists() else "; model/ has been moved or removed since"
            return Standing("finished", f"its model is saved{gone}", silent)
        return Standing("interrupted", "it ended before its last step", silent)
    number, host = holder
    if host == socket.gethostname():
        if _lives(number, lock):
            return Standing("running", f"process {number}", silent)
        return Standing("interrupted", f"process {number} was killed, or its machine was", silent)
    if silent <= patience:
        return Standing("running", f"process {number} on {host}", silent)
    why = (
        f"process {number} on {host} cannot be seen from here, and wrote nothing for {silent:.0f} s"
    )
    return Standing("stale", why, silent)


def begun(folder: Path) -> bool:
    """Whether a run was ever begun in a folder."""
    return any((folder / name).exists() for name in TRACES)


def finished(folder: Path) -> bool:
    """Whether a run was trained to its end, wherever its model is now. Of one in stages: all of them."""
    stages = _stages(folder)
    if stages:
        return (folder / "model").exists() or all(map(finished, stages))
    with suppress(OSError, ValueError, TypeError):
        told = read_json(folder / "manifest.json")
        if "saved" in told:
            return bool(told["saved"] is not None)
    return (folder / "model").exists()  # of earlier versions


def current(folder: Path) -> Path:
    """Where a run writes now: of one in stages, the folder of the last that was begun."""
    return next((place for place in reversed(_stages(folder)) if begun(place)), folder)


def _stages(folder: Path) -> list[Path]:
    """The folders of a run in stages, in order."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        stages = read_json(folder / "stages.json")
        return [folder / str(one["folder"]) for one in stages if isinstance(one, dict)]
    return []


def _last_written(*folders: Path) -> float:
    times = [0.0]
    for place in (folder / name for folder in folders for name in GROWING):
        with suppress(OSError):
            times.append(place.stat().st_mtime)
    return max(times)


def _holder(lock: Path) -> tuple[int, str] | None:
    """Process and machine that hold a run's lock; None where it is not there."""
    try:
        told = HOLDER.match(lock.read_text(errors="replace"))
    except FileNotFoundError:
        return None
    return (int(told[1]), told[2].strip()) if told else (0, "a machine")  # written in a moment


def _lives(number: int, lock: Path) -> bool:
    """Whether the process that wrote a lock is still there; another may have its number by now."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        pass
    state, began = _told_of(number)
    if (
        state == "Z"
    ):  # it has ended, and nobody has asked how: the first process of a container may not
        return False
    with suppress(FileNotFoundError):
        return began is None or began <= lock.stat().st_mtime + SKEW
    return False


def _told_of(number: int) -> tuple[str, float | None]:
    """The state of a process of this machine, and when it began, in seconds since 1970 (proc(5)); "" and
    None where that is not told."""
    try:
        words = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        boot = re.search(r"^btime (\d+)$", Path("/proc/stat").read_text(), re.MULTILINE)
    except OSError:
        return "", None
    began = float(boot[1]) + int(words[19]) / os.sysconf("SC_CLK_TCK") if boot else None
    return words[0], began
