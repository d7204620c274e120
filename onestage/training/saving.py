"""Checkpoints that are written while the run goes on.

What belongs in one is copied to the host's memory, for which the run stops, and a thread writes the
copies. One is written at a time: the next, and the end of the run, wait for it. What fails is raised at
the end of the step under way, so that a full disk ends a run as soon as it would have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from torch import Tensor, distributed

from onestage.runfolder import Say
from onestage.training.agreeing import PATIENCE
from onestage.training.stopped import finishing


class Saving:
    """What is being written beside a run."""

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._under_way: Future[Any] | None = None
        self._group: Any = None

    def begin(self, write: Callable[[], None]) -> None:
        """Write, beside the run; nothing else may be under way (`wait`)."""
        assert self._under_way is None
        self._thread = self._thread or ThreadPoolExecutor(1, "checkpoint")
        self._under_way = self._thread.submit(write)
        finishing(self._under_way)

    def look(self) -> None:
        """Raise what went wrong, if it is known by now."""
        if self._under_way is not None and self._under_way.done():
            self.wait()

    def wait(self) -> None:
        """Wait for what is under way, and raise what goes wrong with it."""
        ending, self._under_way = self._under_way, None
        if ending is not None:
            ending.result()

    @contextmanager
    def to_the_end(self, say: Say) -> Iterator[None]:
        """Inside a run goes on; what is under way then is waited for. Where the run fails, what goes
        wrong with it is said, and does not take the place of what the run failed of."""
        try:
            yield
        except BaseException:
            try:
                self._close()
            except Exception as error:
                why = " ".join(str(error).split()) or type(error).__name__
                say(f"the checkpoint under way is discarded, the one before is whole ({why})")
            raise
        self._close()

    def _close(self) -> None:
        """As `wait`, for the last time."""
        try:
            self.wait()
        finally:
            if self._thread is not None:
                self._thread.shutdown()
            if self._group is not None:
                distributed.destroy_process_group(self._group)
                self._group = None

    @property
    def group(self) -> Any:
        """All ranks, who talk of what is written beside what the run itself sends; all must ask."""
        if self._group is None:
            self._group = distributed.new_group(backend="gloo", timeout=PATIENCE)
        return self._group


def still(value: Any) -> Any:
    """A copy of tables and lists of tensors, on the CPU, that stays as it is while the run goes on."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: still(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(still(one) for one in value)
    return value
