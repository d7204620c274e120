"""The command line: `onestage train | check | study | report | demo | ...`."""

from onestage.cli import training  # isort: skip
from onestage.cli import models  # isort: skip
from onestage.cli import (
    comparing,
    demonstration,
    judging,
    lab,
    merging,
    problems,
    reporting,
    studying,
)
from onestage.cli.terminal import app

__all__ = [
    "app",
    "comparing",
    "demonstration",
    "judging",
    "lab",
    "merging",
    "models",
    "problems",
    "reporting",
    "studying",
    "training",
]
