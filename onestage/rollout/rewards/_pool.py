"""Worker processes that judge answers, with a deadline for each.

A checker reads what a model under training wrote, and may hang, crash or eat the memory on it. It runs
in a process of its own that imports nothing but the checker (no torch, no CUDA, no copy of the parent:
a fresh interpreter). Answers travel in chunks; the worker says when it begins each, and when one has
taken longer than its deadline the worker is killed, that answer has failed, and the rest of the chunk
goes to a new worker. Workers are kept from call to call and die with their parent.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import pickle
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from onestage.config import source_of
from onestage.rollout.rewards import Answer, Failure
from onestage.rollout.rewards._worker import LENGTH

WORKERS = 2
MEMORY_MB = 4096
SET_UP_SECONDS = 120.0
"""For a worker to start and to import what a checker needs."""
LARGEST_CHUNK = 32
MOST_CHARACTERS = 1 << 20
"""Of text in a chunk of several answers."""
START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1));"
    "from onestage.rollout.rewards._worker import serve; serve()"
)


class Judge(Protocol):
    """What a pool runs: picklable, importable in another process."""

    @property
    def deadline(self) -> float: ...
    def prepare(self) -> None: ...
    def judge(self, answer: Answer) -> float: ...


Chunk = list[tuple[int, Answer]]


class Worker:
    """One process and what it is doing."""

    def __init__(self, memory_mb: int) -> None:
        # A fresh interpreter: a fork would have torch, CUDA and this process's locks in it.
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, json.dumps(sys.path), str(memory_mb << 20)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={"OMP_NUM_THREADS": "1", **os.environ},
            start_new_session=True,  # so that what a checker starts can be ended with it
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.input, self.output = self.process.stdin, self.process.stdout
        # A worker may be killed in the middle of a line, whose end would be waited for in vain.
        os.set_blocking(self.output.fileno(), False)
        self.unread = b""
        self.ready = False
        self.chunk: deque[tuple[int, Answer]] = deque()
        self.begun: int | None = None
        self.since = 0.0
        self.owed = 0
        """What it was set up for ahead of time, and has not said to be ready for yet."""

    def give(self, kind: bytes, deadline: float, chunk: Chunk) -> None:
        """Send a chunk to an idle worker. `BrokenPipeError` where it is gone."""
        try:
            body = pickle.dumps((kind, deadline, chunk))
        except Exception as error:
            raise ValueError(f"an answer cannot be sent to a worker: {error}") from error
        self.chunk, self.ready, self.since = deque(chunk), False, time.monotonic()
        unsent = memoryview(LENGTH.pack(len(body)) + body)
        while unsent:
            unsent = unsent[self.input.write(unsent) :]

    def lines(self) -> tuple[list[list[Any]], bool]:
        """What it said since, and whether it can say more."""
        alive = True
        while True:
            try:
                data = os.read(self.output.fileno(), 1 << 16)
            except BlockingIOError:
                break
            if not data:
                alive = False
                break
            self.unread += data
        *whole, self.unread = self.unread.split(b"\n")
        return [json.loads(line) for line in whole], alive

    def end(self) -> int:
        """Kill it and all that it started; its return code, negative for a signal."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        code = self.process.wait()
        for channel in (self.input, self.output):
            channel.close()
        return code


class Pool:
    """A few workers. Safe to call from several threads, one call at a time."""

    def __init__(self, workers: int = WORKERS, memory_mb: int = MEMORY_MB) -> None:
        """`memory_mb`: address space of each worker, 0 for no limit."""
        if workers < 1:
            raise ValueError(f"a pool needs one worker or more, got {workers}")
        if memory_mb < 0:
            raise ValueError(f"memory_mb must not be negative, got {memory_mb}")
        self.size, self.memory_mb = workers, memory_mb
        self.workers: list[Worker] = []
        self.owner = os.getpid()
        self.lock = threading.Lock()

    def judge(self, checker: Judge, answers: Sequence[Answer]) -> list[float | Failure]:
        """A reward or a failure for each answer, in order.

        `ValueError` where the checker cannot be set up or cannot be sent to another process."""
        with self.lock:
            try:
                return _Round(self, checker, answers).run()
            except BaseException:  # also Ctrl-C: nothing may go on judging what nobody waits for
                self._end_all()
                raise

    def set_up(self, checker: Judge) -> None:
        """Make one worker ready for a checker; `ValueError` where that cannot be."""
        with self.lock:
            try:
                _Round(self, checker, [], only_set_up=True).run()
            except BaseException:
                self._end_all()
                raise

    def begin(self, checker: Judge) -> None:
        """Start the workers that there are not yet and have them set up for a checker, beside whatever
        this process does next."""
        with self.lock:
            while len(self.workers) < self.size:
                worker = Worker(self.memory_mb)
                self.workers.append(worker)
                with contextlib.suppress(BrokenPipeError):  # seen when it is wanted
                    worker.give(_kind(checker), float(checker.deadline), [])
                    worker.owed += 1

    def close(self) -> None:
        """End the workers. The pool may be used again: new ones are started."""
        with self.lock:
            self._end_all()

    def _end_all(self) -> None:
        workers, self.workers = self.workers, []
        if self.owner == os.getpid():  # not in a fork of this process: the workers are not its own
            for worker in workers:
                worker.end()


class _Round:
    """One call: chunks that wait, workers that judge, outcomes."""

    def __init__(
        self, pool: Pool, checker: Judge, answers: Sequence[Answer], only_set_up: bool = False
    ) -> None:
        self.pool, self.deadline = pool, float(checker.deadline)
        self.outcomes: list[float | Failure | None] = [None] * len(answers)
        self.kind = _kind(checker)
        self.waiting = deque([[]] if only_set_up else _chunks(answers, pool.size))
        self.busy: list[Worker] = []
        self.unlucky = 0
        self.watch = selectors.DefaultSelector()

    def run(self) -> list[float | Failure]:
        try:
            while self.waiting or self.busy:
                self._hand_out()
                self.watch.select(self._patience())
                for worker in list(self.busy):
                    self._listen(worker)
        finally:
            self.watch.close()
        return [outcome for outcome in self.outcomes if outcome is not None]

    def _hand_out(self) -> None:
        idle = [worker for worker in self.pool.workers if worker not in self.busy]
        while self.waiting and (idle or len(self.pool.workers) < self.pool.size):
            worker = idle.pop() if idle else self._start()
            try:
                worker.give(self.kind, self.deadline, self.waiting[0])
            except BrokenPipeError:  # it died between two calls
                self._discard(worker)
                self._count_unlucky("ended by itself")
                continue
            self.waiting.popleft()
            self.busy.append(worker)
            self.watch.register(worker.output, selectors.EVENT_READ)

    def _start(self) -> Worker:
        worker = Worker(self.pool.memory_mb)
        self.pool.workers.append(worker)
        return worker

    def _patience(self) -> float:
        """Seconds until the next deadline."""
        return max(0.0, min(w.since + self._limit(w) for w in self.busy) - time.monotonic())

    def _limit(self, worker: Worker) -> float:
        return self.deadline if worker.ready else SET_UP_SECONDS

    def _listen(self, worker: Worker) -> None:
        lines, alive = worker.lines()
        for what, *rest in lines:
            if worker.owed:  # what is wrong with a checker is said where it is to judge
                worker.owed -= what in ("done", "unready")
            elif what == "ready":
                worker.ready, worker.since = True, time.monotonic()
            elif what == "unready":
                raise ValueError(rest[0])
            elif what == "begun":
                worker.begun, worker.since = rest[0], time.monotonic()
            elif what == "done":
                self.busy.remove(worker)
                self.watch.unregister(worker.output)
                return
            else:
                number, *outcome = rest
                self.outcomes[number] = outcome[0] if what == "reward" else Failure(*outcome)
                worker.chunk.popleft()
                worker.begun, worker.since = None, time.monotonic()
                self.unlucky = 0
        if not alive:
            self._lost(worker)
        elif time.monotonic() > worker.since + self._limit(worker):
            self._lost(worker, overrun=True)

    def _lost(self, worker: Worker, overrun: bool = False) -> None:
        """A worker hung or died: the answer it had begun has failed, the others wait again."""
        self.busy.remove(worker)
        self.watch.unregister(worker.output)
        code = self._discard(worker)
        if worker.begun is not None:
            # The worker's own alarm can be faster than this process is.
            overrun = overrun or code == -signal.SIGALRM
            self.outcomes[worker.begun] = (
                Failure("deadline", f"took longer than {self.deadline:g} s")
                if overrun
                else Failure("crash", f"the worker {_cause(code)}")
            )
            worker.chunk.popleft()
        elif overrun:
            raise ValueError(f"a worker was not set up within {SET_UP_SECONDS:g} s")
        else:
            self._count_unlucky(_cause(code))
        if worker.chunk or not worker.ready:
            self.waiting.appendleft(list(worker.chunk))

    def _count_unlucky(self, how: str) -> None:
        self.unlucky += 1
        if self.unlucky >= 3:
            raise ValueError(f"workers end before they judge anything: the last one {how}")

    def _discard(self, worker: Worker) -> int:
        self.pool.workers.remove(worker)
        return worker.end()


def _kind(checker: Judge) -> bytes:
    """A checker on its way to a worker. `ValueError` where it cannot be sent."""
    try:
        # Pickles name the module of a class, and a stranger's may be a file without such a name.
        return pickle.dumps((source_of(type(checker)), pickle.dumps(checker)))
    except Exception as error:
        raise ValueError(f"{checker!r} cannot be sent to a worker: {error}") from error


def _chunks(answers: Sequence[Answer], workers: int) -> list[Chunk]:
    """About four chunks a worker, none very large."""
    most = max(1, min(LARGEST_CHUNK, len(answers) // (4 * workers)))
    chunks: list[Chunk] = []
    size = 0
    for number, answer in enumerate(answers):
        length = len(answer.prompt) + len(answer.completion)
        if not chunks or len(chunks[-1]) == most or size + length > MOST_CHARACTERS:
            chunks.append([])
            size = 0
        # Any mapping may hold a record's columns, but only a dict is sure to be picklable.
        plain = replace(
            answer,
            facts=dict(answer.facts),
            turns=tuple(map(dict, answer.turns)),
            template=dict(answer.template),
        )
        chunks[-1].append((number, plain))
        size += length
    return chunks


def _cause(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"


_shared: Pool | None = None


def shared() -> Pool:
    """The pool of this process, started when first used."""
    global _shared
    # In a fork of this process the workers are the parent's.
    if _shared is None or _shared.owner != os.getpid():
        _shared = Pool()
        atexit.register(_shared.close)
    return _shared


def close_shared() -> None:
    """End the workers of the shared pool, if there are any."""
    if _shared is not None and _shared.owner == os.getpid():
        _shared.close()
