"""Ending a run from outside: a scheduler's SIGTERM, or Ctrl-C."""

from __future__ import annotations

import signal
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onestage.training.run import Run


class StoppingOnSignals:
    """SIGTERM and the first SIGINT end the run after the step under way, with a checkpoint."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.before: dict[int, Any] = {}

    def __enter__(self) -> None:
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                self.before[number] = signal.signal(number, self._stop)
        except ValueError:  # not the main thread: the program around us handles signals
            self.before = {}

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.run.say(f"{signal.Signals(number).name}: stopping after this step")
        self.run.stop, self.run.signal = True, number
        # So the second Ctrl-C ends the process at once.
        signal.signal(number, self.before[number])

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
