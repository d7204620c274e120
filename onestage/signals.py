"""Ending a run from outside: a scheduler's SIGTERM, or Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from onestage.training import Run


class StoppingOnSignals:
    """SIGTERM and the first SIGINT end the run after the step under way, with a checkpoint."""

    def __init__(self, run: Run, say: Callable[[str], None]) -> None:
        self.run, self.say = run, say
        self.before: dict[int, Any] = {}

    def __enter__(self) -> None:
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                self.before[number] = signal.signal(number, self._stop)
        except ValueError:  # not the main thread: the program around us handles signals
            self.before = {}

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.say(f"{signal.Signals(number).name}: stopping after this step")
        self.run.stop = True
        signal.signal(number, self.before[number])

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
