"""Runs to which something happens after a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from onestage.training.callbacks import Callback
from onestage.training.run import Run


def quiet(line: str) -> None: ...


class At(Callback):
    """Does something after a step."""

    def __init__(self, step: int, act: Callable[[Run], Any]) -> None:
        self.at, self.act = step, act

    def step(self, run: Run, loss: float) -> None:
        if run.step == self.at:
            self.act(run)


def crash(run: Run) -> None:
    raise MemoryError("killed")
