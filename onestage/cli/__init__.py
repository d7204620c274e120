"""The command line: `onestage train | check | score | sample | merge | problems | lab | demo | ...`."""

from onestage.cli import training  # isort: skip
from onestage.cli import models  # isort: skip
from onestage.cli import comparing, demonstration, lab, merging, problems, reporting
from onestage.cli.terminal import app

__all__ = [
    "app",
    "comparing",
    "demonstration",
    "lab",
    "merging",
    "models",
    "problems",
    "reporting",
    "training",
]
