"""The command line: `onestage train | check | score | sample | demo | lab`, a file for each group."""

from onestage.cli import training  # isort: skip
from onestage.cli import demonstration, lab, models
from onestage.cli.terminal import app

__all__ = ["app", "demonstration", "lab", "models", "training"]
