"""Experiment trackers (tensorboard, wandb, trackio, mlflow, ...), all through accelerate.

`train: {report_to: wandb}` is short for a callback `{name: tracker, to: wandb}`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onestage.config import nearest
from onestage.training.callbacks import Callback

if TYPE_CHECKING:
    from onestage.training.loop import Run


CALLED = {"wandb": "name", "trackio": "name", "mlflow": "run_name"}
"""By tracker, the argument that names a run; the others take none, or make one up."""
REFUSED = {"mlflow": re.compile(r"[^/\w.\- :]")}
"""By tracker, what stands in no name of a metric there (lm-eval's are like `acc,none`), and is `_`."""


@dataclass
class Tracker(Callback):
    to: str
    """Where: a tracker by its name in accelerate."""
    project: str = "onestage"

    def __post_init__(self) -> None:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

        known = [str(name) for name in LOGGER_TYPE_TO_CLASS]
        if self.to not in known:
            raise ValueError(f"unknown tracker {self.to!r}{nearest(self.to, known)}")
        installed = [str(tracker) for tracker in get_available_trackers()]
        if self.to not in installed:
            extra = "trackers" if self.to == "tensorboard" else self.to
            wanted = f"'onestage[{extra}]'" if self.to in (*CALLED, "tensorboard") else self.to
            raise ValueError(
                f"the package of {self.to} is not installed (installed: "
                f"{', '.join(installed) or 'none'}); pip install {wanted}"
            )
        self._tracker: Any = None

    def begin(self, run: Run) -> None:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        kind: Any = LOGGER_TYPE_TO_CLASS[self.to]
        where = [str(run.out)] if kind.requires_logging_directory else []
        named = {CALLED[self.to]: run.out.resolve().name} if self.to in CALLED else {}
        self._tracker = kind(self.project, *where, **named)
        self._tracker.start()
        self._tracker.store_init_configuration({"recipe": run.told})

    def metrics(self, line: dict[str, Any]) -> None:
        numbers = {known_as(n, self.to): value for n, value in line.items() if n != "step"}
        self._tracker.log(numbers, step=line["step"])

    def end(self) -> None:
        if self._tracker is not None:
            self._tracker.finish()


def known_as(name: str, to: str) -> str:
    """A metric's name as a tracker takes it."""
    return REFUSED[to].sub("_", name) if to in REFUSED else name
