"""Where a stranger's code is wrong: the file and line of theirs from which an error came."""

from __future__ import annotations

import os
import sysconfig
import traceback
from pathlib import Path

OURS = str(Path(__file__).parents[1]) + os.sep
LIBRARIES = tuple(
    {sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)


def fault(error: BaseException) -> str:
    """The error in words, with the innermost line that is neither ours nor a library's, if any."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [one for one in frames if not one.filename.startswith((OURS, *LIBRARIES, "<"))]
    place = f" ({theirs[-1].filename}, line {theirs[-1].lineno})" if theirs else ""
    return f"{type(error).__name__}: {error}{place}"
