"""The command line: `onestage train | check | score | sample | merge | demo`, a file for each group."""

from onestage.cli import training  # isort: skip
from onestage.cli import models  # isort: skip
from onestage.cli import demonstration, merging
from onestage.cli.terminal import app

__all__ = ["app", "demonstration", "merging", "models", "training"]
