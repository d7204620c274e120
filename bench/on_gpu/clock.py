"""When the steps of a trainer end, ours or TRL's, with all that was asked of the device done."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from on_gpu import fresh, peak_gib, waited


class Clock:
    """Marks of the beginning and of every step's end, and the largest memory until the last."""

    def __init__(self) -> None:
        self.marks: list[float] = []
        self.peak = 0.0

    @property
    def seconds(self) -> list[float]:
        """Of each step."""
        return [b - a for a, b in pairwise(self.marks)]

    def begin(self) -> None:
        fresh()
        self.marks.append(waited())

    def tick(self) -> None:
        self.marks.append(waited())
        self.peak = peak_gib()

    def ours(self, steps: int) -> Any:
        """A callback of onestage, which stops the run after some steps."""
        from onestage.training.callbacks import Callback

        clock = self

        class Told(Callback):
            def begin(self, run: Any) -> None:
                clock.begin()

            def step(self, run: Any, loss: float) -> None:
                clock.tick()
                run.stop = run.step == steps

        return Told()

    def theirs(self) -> Any:
        """A callback of transformers' trainer, and so of TRL's."""
        from transformers import TrainerCallback

        clock = self

        class Told(TrainerCallback):
            def on_train_begin(self, *given: Any, **more: Any) -> None:
                clock.begin()

            def on_step_end(self, *given: Any, **more: Any) -> None:
                clock.tick()

        return Told()
