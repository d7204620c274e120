"""Who looks on while a run goes: a progress bar, a log, a test."""

from __future__ import annotations

from typing import Any

from onestage.training import Run


class Watcher:
    """Who looks on: told of every step and of every line of metrics. This one does nothing."""

    def begin(self, run: Run) -> None:
        """The run is about to start (or go on)."""

    def step(self, run: Run, loss: float) -> None:
        """A step was done."""

    def line(self, metrics: dict[str, Any]) -> None:
        """A line was written to the metrics."""

    def end(self) -> None:
        """The run is over, by whatever cause."""
