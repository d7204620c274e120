"""Who looks on while a run goes: a progress bar, a tracker, a test, a notebook.

A callback is told of the beginning, of every step, of every line of metrics and of the end. It changes
nothing of the training, but may set `run.stop` to end it after the step under way, with a checkpoint.
In Python, `train(..., callbacks=[Mine()])`; in a recipe, `train: {callbacks: ["mypackage:Mine"]}`, with
options as `{name: "mypackage:Mine", every: 10}`. A file of this folder is one that we ship.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any

from onestage.config import Plugins

if TYPE_CHECKING:
    from onestage.training.loop import Run


class Callback(abc.ABC):  # noqa: B024 - whoever looks on says what they want to be told
    """Override what you want to be told; all of it happens on the main process only."""

    def begin(self, run: Run) -> None:  # noqa: B027
        """The run is about to start, or to go on: `run.step` of `run.steps` are done."""

    def step(self, run: Run, loss: float) -> None:  # noqa: B027
        """A step was done. `loss`: what its metrics will say, in the objective's own unit."""

    def metrics(self, line: dict[str, Any]) -> None:  # noqa: B027
        """A line of `metrics.jsonl`: `step`, and numbers by name (None where one is not finite)."""

    def end(self) -> None:  # noqa: B027
        """The run is over, by whatever cause; called also where an error ended it."""


TOLD = ("begin", "step", "metrics", "end")
"""What a callback may be told."""


def require_told(one: Any) -> None:
    """Raise `ValueError` for what is no callback, and for one that is told nothing."""
    if isinstance(one, type):
        raise ValueError(f"found the class {one.__name__}; give {one.__name__}()")
    if not all(hasattr(one, name) for name in TOLD):
        raise ValueError(f"found {one!r}, which is no one.Callback")
    if all(getattr(type(one), name, None) is getattr(Callback, name) for name in TOLD):
        raise ValueError(
            f"{type(one).__name__} overrides none of {', '.join(TOLD)}, so it would be told nothing"
        )


PLUGINS = Plugins("callback", __name__, Callback)
