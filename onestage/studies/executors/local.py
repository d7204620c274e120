"""On this machine, in processes of their own: one that dies takes nothing else with it.

Each process keeps its imports from job to job, and on a machine with several GPUs has one of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pebble import ProcessExpired, ProcessPool

from onestage.config import first_line
from onestage.data.workers import end_with_parent
from onestage.studies.cells import Cell
from onestage.studies.executors import Crew, Ended, Executor, Place
from onestage.studies.run_cell import prepare, run_cell
from onestage.studies.worlds import Ground

Job = tuple[Callable[..., Any], tuple[Any, ...]]
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Local(Executor):
    """As many processes as `--jobs` says: by default one a GPU, or else one a core."""

    @contextmanager
    def opened(self, place: Place) -> Iterator[Crew]:
        if place.resources.model_fields_set:
            place.say(
                "resources: are what a cell takes of a cluster; here --jobs says how many run"
            )
        with workers(place.jobs or default_jobs()) as run:
            yield Processes(run, place)


class Processes(Crew):
    """Cells as jobs, whose folders and cache are this machine's."""

    def __init__(self, run: Here, place: Place) -> None:
        self.run, self.place = run, place

    def prepare(self, cells: Sequence[Cell]) -> Iterator[Ended]:
        cache = self.place.cache
        yield from self.run([(prepare, (cell.world, cell.seed, cache)) for cell in cells])

    def do(self, work: Sequence[tuple[Cell, Ground]], keep_models: bool) -> Iterator[Ended]:
        cells, cache = self.place.out / "cells", self.place.cache
        left = Counter(cell.first_stage for cell, _ in work)
        folder = self.place.out / "first_stages"
        shared = {first: folder / first for first, number in left.items() if first and number > 1}
        jobs: list[Job] = []
        for cell, ground in work:
            given = (cell, ground, cells / cell.name, cache, keep_models)
            jobs.append((run_cell, (*given, shared.get(cell.first_stage or ""))))
        for ended in self.run(jobs):
            first = work[ended[0]][0].first_stage
            left[first] -= 1
            if first in shared and not left[first]:
                shutil.rmtree(shared[first], ignore_errors=True)
            yield ended
        shutil.rmtree(folder, ignore_errors=True)


def gpus() -> list[str]:
    """The GPUs that may be used, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return given.split(",")[:count] if given else [str(number) for number in range(count)]


def default_jobs() -> int:
    """A process a GPU, or else a CPU core."""
    return len(gpus()) or len(os.sched_getaffinity(0))


class Here:
    """Does jobs in this process, one after another."""

    def __call__(self, jobs: Sequence[Job]) -> Iterator[Ended]:
        """Yields number, what the job returned, and why it failed (`""`: it did not), as they end."""
        for number, (task, given) in enumerate(jobs):
            try:
                yield number, task(*given), ""
            except Exception as error:
                yield number, None, first_line(error)


class Workers(Here):
    """Does jobs in several processes, which stay for all calls."""

    def __init__(self, pool: ProcessPool) -> None:
        self.pool = pool

    def __call__(self, jobs: Sequence[Job]) -> Iterator[Ended]:
        number_of: dict[Future[Any], int] = {
            self.pool.schedule(task, args=list(given)): n for n, (task, given) in enumerate(jobs)
        }
        left = set(number_of)
        while left:
            ended, left = wait(left, return_when=FIRST_COMPLETED)
            for future in sorted(ended, key=number_of.__getitem__):
                yield number_of[future], *_outcome(future)


@contextmanager
def workers(processes: int) -> Iterator[Here]:
    """As many processes of one thread each; with one, this process itself. Stopped with what they do
    when the block is left by an exception, or when this process is killed: whoever takes up the study
    then must be alone in a cell's folder."""
    if processes == 1:
        yield Here()
        return
    # CUDA does not survive a fork.
    context = multiprocessing.get_context("spawn")
    devices = context.Queue()
    for device in gpus():
        devices.put(device)
    before = {name: os.environ.get(name) for name in THREADS}
    # Read when torch is imported, so it must be there before a process begins.
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        # Without cards nothing is to settle, and a process reads no more than its first job needs.
        begin, given = (_settle, [devices]) if gpus() else (end_with_parent, [])
        with ProcessPool(processes, context=context, initializer=begin, initargs=given) as pool:
            try:
                yield Workers(pool)
            except BaseException:
                pool.stop()
                raise
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _outcome(future: Future[Any]) -> tuple[Any, str]:
    try:
        return future.result(), ""
    except ProcessExpired as error:
        return None, f"its process died (exit code {error.exitcode})"
    except Exception as error:
        return None, first_line(error)


def _settle(devices: Any) -> None:
    """A worker's GPU, taken in turn, so that one that replaces a dead one has one, too."""
    end_with_parent()
    try:
        device = devices.get(timeout=1)
    except queue.Empty:
        return
    devices.put(device)
    os.environ["CUDA_VISIBLE_DEVICES"] = device
