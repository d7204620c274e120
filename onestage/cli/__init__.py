"""The command line: `onestage train | check | score | sample | merge | lab | demo`."""

from onestage.cli import training  # isort: skip
from onestage.cli import models  # isort: skip
from onestage.cli import demonstration, lab, merging
from onestage.cli.terminal import app

__all__ = ["app", "demonstration", "lab", "merging", "models", "training"]
