"""What is said of whatever escapes a command: one line, and a traceback only for who asks for it.

What the user can mend is raised by us on purpose, and says so itself. An error that nobody foresaw is a
fault of ours, or of other people's code that a recipe names, and is told as that, with its place.
"""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Sequence
from pathlib import Path

from onestage.runfolder.disk import AGAIN, DiskFullError, no_room

PACKAGE = str(Path(__file__).parents[1])
LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib")})
FORESEEN = (ValueError, OSError, ImportError, RuntimeError, NotImplementedError)
"""What is raised for the user to read."""


def told(error: Exception) -> str:
    """What escaped, in a line (of a list of mistakes one each): what, where, what to type next."""
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1] if frames else None
    place = _place([frame for frame in frames if frame.filename.startswith(PACKAGE)])
    said = str(error) or type(error).__name__
    line = " ".join(said.split())
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return (
            f"out of memory ({line}): set model.gradient_checkpointing: true, or lower "
            "train.tokens_per_row"
        )
    full = no_room(error)
    if full and not isinstance(error, DiskFullError):
        return f"the disk is full ({full}): {line}; {AGAIN}"
    if isinstance(error, FORESEEN) and not isinstance(error, RecursionError):
        if _on_purpose(last):
            return said if _is_list(said) else line
        if isinstance(error, OSError | ImportError):
            return f"{line} (--debug shows where)"
        if last and _of_library(last):
            return f"{line} ({type(error).__name__}, called at {place}; --debug shows more)"
    return f"{_whose(last)}: {type(error).__name__}: {line} (at {place})"


def _on_purpose(frame: traceback.FrameSummary | None) -> bool:
    """Whether our code, or a plug-in's, says `raise` there; where there is no source, it may."""
    if frame is None or _of_library(frame):
        return False
    return not frame.line or frame.line.startswith("raise")


def _of_library(frame: traceback.FrameSummary) -> bool:
    # We may be installed among them.
    return frame.filename.startswith(LIBRARIES) and not frame.filename.startswith(PACKAGE)


def _whose(last: traceback.FrameSummary | None) -> str:
    if last and not last.filename.startswith(PACKAGE) and not _of_library(last):
        return f"a fault in {last.filename}, line {last.lineno} (--debug shows the traceback)"
    return "this is a fault of onestage: run again with --debug and report it"


def _place(ours: Sequence[traceback.FrameSummary]) -> str:
    """Our innermost line."""
    if not ours:
        return "the command line"
    file = Path(ours[-1].filename).relative_to(Path(PACKAGE).parent).as_posix()
    return f"{file}:{ours[-1].lineno}"


def _is_list(text: str) -> bool:
    """Whether each line is a mistake of its own, which an essay of a library's is not."""
    lines = text.split("\n")
    return len(lines) > 1 and all(line and line == line.strip() for line in lines)
