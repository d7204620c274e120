"""The command line: `onestage X` is the file `X.py` of this folder."""

from __future__ import annotations

import importlib
import pkgutil

from onestage.cli._terminal import app

# `--help` lists commands in the order in which their files are read: first what a user does first.
FIRST = ["train", "check"]
_files = [module.name for module in pkgutil.iter_modules(__path__) if module.name[0] != "_"]
for _name in [*FIRST, *(name for name in _files if name not in FIRST)]:
    importlib.import_module(f"onestage.cli.{_name}")

__all__ = ["app"]
