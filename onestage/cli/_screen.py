"""How a run is shown: in place on a terminal, else a line of text for each line of its log."""

from __future__ import annotations

import os
import sys
from typing import Any

from rich.console import Console
from rich.live import Live

from onestage.cli._board import bounds, certified, kept, suites


def screen() -> Live:
    """A live display below what is printed to the terminal."""
    # What goes to a file or a pipe goes on doing so.
    return Live(console=Console(stderr=True), redirect_stdout=sys.stdout.isatty())


def on_terminal() -> bool:
    """Whether what is shown can be shown anew in its place."""
    return sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


def line_of(line: dict[str, Any], steps: int | None, left: float | None) -> str:
    """A line of metrics as a line of text, empty where nothing in it is for people. steps: of the run;
    left: seconds, where known."""
    at = f"step {line['step']}/{'?' if steps is None else steps}"
    if "loss" not in line:
        held_out = f"eval loss {told(line['eval/loss'])}" if "eval/loss" in line else ""
        text = ", ".join(filter(None, (held_out, beside(line))))
        return text and f"{at}  {text}"
    still = "" if left is None else f"  {left:.0f} s left"
    return f"{at}  loss {told(line['loss'])}  {line['tokens_per_second']:,.0f} tokens/s{still}"


def told(value: float | None) -> str:
    """A loss; a number that is not finite stands in the log as none."""
    return "not a number" if value is None else f"{value:.4f}"


def beside(line: dict[str, Any]) -> str:
    """What was measured beside the losses, in a few words."""
    return ", ".join(filter(None, (kept(line), bounds(line), certified(line), suites(line))))
