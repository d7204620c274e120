"""Progress of a run: a live display on a terminal, plain lines in a log."""

from __future__ import annotations

import time
from typing import Any

from rich.live import Live

from onestage.cli._board import Board
from onestage.cli._screen import line_of, on_terminal, screen
from onestage.cli._terminal import say
from onestage.runfolder.following import Growing
from onestage.training.callbacks import Callback

STOPPED = 3
"""Exit code of a run that a guard or a callback stopped."""


class Display(Callback):
    """What stands on the screen while a run goes; other lines are printed above it."""

    def __init__(self) -> None:
        self.live: Live | None = None

    def begin(self, run: Any) -> None:
        self.board = Board(run.steps, run.step)
        self.samples = Growing(run.out / "samples.jsonl")
        self.since, self.tokens, self.first = time.perf_counter(), run.tokens, run.step
        self.live = screen()
        self.live.start()

    def step(self, run: Any, loss: float) -> None:
        spent = max(time.perf_counter() - self.since, 1e-9)
        left = spent / (run.step - self.first) * (run.steps - run.step)
        self.board.at(run.step, loss, (run.tokens - self.tokens) / spent, left)
        self._draw()

    def metrics(self, line: dict[str, Any]) -> None:
        if self.live is None:  # before the first step
            return
        self.board.take(line)
        self.board.show(self.samples.new()[0])
        self._draw()

    def end(self) -> None:
        if self.live is not None:
            self.live.stop()

    def _draw(self) -> None:
        # Drawn here and not by the display's own thread, which would read what is being changed.
        assert self.live is not None
        self.live.update(self.board.drawn())


class Lines(Callback):
    """Plain lines, for logs."""

    def __init__(self) -> None:
        self.steps, self.since, self.first = 0, 0.0, 0

    def begin(self, run: Any) -> None:
        self.steps, self.since, self.first = run.steps, time.perf_counter(), run.step

    def metrics(self, line: dict[str, Any]) -> None:
        spent = time.perf_counter() - self.since
        step = line["step"]
        left = spent / max(1, step - self.first) * (self.steps - step)
        text = line_of(line, self.steps, left)
        if text:
            say(text)


class Ending(Callback):
    """How the run ended, as the exit code of its process."""

    def __init__(self) -> None:
        self.run: Any = None

    def begin(self, run: Any) -> None:
        self.run = run

    @property
    def code(self) -> int:
        """0: trained to the end; as a shell has it where a signal stopped it; else 3."""
        if self.run is None or self.run.done:
            return 0
        return STOPPED if self.run.signal is None else 128 + self.run.signal


def progress() -> Callback:
    """A live display on a terminal, a line for each line of metrics elsewhere."""
    return Display() if on_terminal() else Lines()
