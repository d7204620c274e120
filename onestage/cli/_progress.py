"""Progress of a run: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from onestage.cli._terminal import say
from onestage.training.callbacks import Callback

STOPPED = 3
"""Exit code of a run that a guard or a callback stopped."""


class Bar(Callback):
    """Progress with loss, tokens a second and the time left."""

    def __init__(self) -> None:
        self.progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("loss {task.fields[loss]:.4f}  {task.fields[rate]:,.0f} tokens/s  "),
            TextColumn("{task.fields[kept]}  left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self.since, self.tokens = 0.0, 0

    def begin(self, run: Any) -> None:
        self.since, self.tokens = time.perf_counter(), run.tokens
        self.task = self.progress.add_task(
            "train", total=run.steps, completed=run.step, loss=0.0, rate=0.0, kept=""
        )
        self.progress.start()

    def step(self, run: Any, loss: float) -> None:
        rate = (run.tokens - self.tokens) / (time.perf_counter() - self.since)
        self.progress.update(self.task, completed=run.step, loss=loss, rate=rate)

    def metrics(self, line: dict[str, Any]) -> None:
        if "loss" not in line and "eval/loss" not in line and hasattr(self, "task"):
            self.progress.update(self.task, kept=kept(line))

    def end(self) -> None:
        self.progress.stop()


class Lines(Callback):
    """Plain lines, for logs."""

    def __init__(self) -> None:
        self.steps, self.since, self.first = 0, 0.0, 0

    def begin(self, run: Any) -> None:
        self.steps, self.since, self.first = run.steps, time.perf_counter(), run.step

    def metrics(self, line: dict[str, Any]) -> None:
        step = line["step"]
        if "loss" not in line and "eval/loss" not in line:
            say(f"step {step}/{self.steps}  {kept(line)}")
            return
        if "eval/loss" in line:
            say(f"step {step}/{self.steps}  eval loss {line['eval/loss']:.4f}")
            return
        spent = time.perf_counter() - self.since
        left = spent / max(1, step - self.first) * (self.steps - step)
        say(
            f"step {step}/{self.steps}  loss {line['loss']:.4f}  "
            f"{line['tokens_per_second']:,.0f} tokens/s  {left:.0f} s left"
        )


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
    """A progress bar on a terminal, a line for each line of metrics elsewhere."""
    return Bar() if sys.stderr.isatty() else Lines()


def kept(metrics: dict[str, Any]) -> str:
    """What a probe found, in a few words: what was kept, and whether objectives pull apart."""
    parts = []
    for name, value in metrics.items():
        if value is None:
            continue
        place, _, what = name.rpartition("/")
        if what == "loss_increase":
            parts.append(f"{place.removeprefix('retention/')} loss {value:+.3f}")
        elif what == "kl":
            parts.append(f"{place.split('/')[-1]} KL {value:.3f}")
        elif place.startswith("probe/cosine"):
            parts.append(f"cos({place.split('/')[-1]}, {what}) {value:+.2f}")
    return ", ".join(parts)
