"""Reports: run and study folders, read from disk, as one page that opens offline.

`onestage.report(["runs/a", "runs/b"])` writes it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onestage.report.page import Written


class _Verb(ModuleType):
    """The room has the name of its verb: once it is imported, `onestage.report` is this module."""

    def __call__(
        self, folders: Any, out: str | Path | None = None, title: str | None = None
    ) -> Written:
        from onestage.report.page import report

        return report(folders, out, title)


sys.modules[__name__].__class__ = _Verb
