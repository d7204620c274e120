"""Jobs that end badly, or not by themselves. Imports next to nothing: worker processes load it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path


def die(number: int) -> int:
    if number == 1:
        os._exit(13)
    return number


def fail(number: int) -> int:
    raise ValueError(f"no {number}\nsecond line")


def linger(folder: Path) -> None:
    """Leaves the number of its process in a folder, and goes on for two minutes."""
    (folder / str(os.getpid())).touch()
    time.sleep(120)


def hold_workers(folder: Path) -> None:
    """Two processes of a study that linger."""
    from onestage.studies.executors.local import workers

    with workers(2) as run:
        list(run([(linger, (folder,))] * 2))


def until(happened: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
