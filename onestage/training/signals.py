"""Ending a run from outside: a scheduler's SIGTERM, or Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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

    def __exit__(self, kind: object, error: BaseException | None, *place: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        if self.before and isinstance(error, RuntimeError) and self.run.devices.ranks > 1:
            # A launcher ends all ranks a moment after one has died: first they say which.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)


@contextmanager
def sigterm_put_back() -> Iterator[None]:
    """Afterwards SIGTERM does what it did before."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        with suppress(ValueError, TypeError):  # not the main thread; a handler that is not Python's
            signal.signal(signal.SIGTERM, before)
