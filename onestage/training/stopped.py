"""A rank that stops leaves its words where all others find them, wherever in a run it was.

Where it is known that one may fail alone, ranks wait for each other (`agreeing.all_do`). Everywhere else
they learn of it when a message fails, without knowing why: on gloo at once, on cards when messages give
up, after ten minutes. So a rank that stops puts its words into the store through which the ranks have
found each other, and a thread of each rank looks there, also while the rank waits. Of one that cannot
say anything any more, another thread finds out (`pulse`).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from secrets import token_hex
from threading import Event, Lock, Thread
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import distributed

from onestage.training.pulse import Pulse

GONE = ("closed by peer", "reset by peer", "Broken pipe", "Timed out", "remote process exited")
"""What torch's messengers say where the other end is no longer there."""
EVERY = 1.0
"""Seconds between two looks."""
LINGER = 5.0
"""Seconds that a rank which stops stays for the others to read its words: where no launcher keeps the
store, it is gone with the main process."""
GRACE = 30.0
"""Seconds that a rank may go on, or wait, after another has stopped, before its process is ended. What
it writes meanwhile (`finishing`) is not counted."""
WORDS, READ = "words", "read"


FINISH = 600.0
"""Seconds after which it is counted all the same: it may wait for the rank that has stopped."""
WITHIN = 2.0
"""Seconds after which the words of a rank that has stopped are there."""
_finishing: set[Future[Any]] = set()
"""What is being written by this process, beside its run."""


def finishing(work: Future[Any]) -> None:
    """Let something be finished before this process is ended because another rank has stopped."""
    _finishing.add(work)
    work.add_done_callback(_finishing.discard)


class RankError(RuntimeError):
    """Another rank has stopped."""


@contextmanager
def among_ranks(accelerator: Accelerator) -> Iterator[None]:
    """Inside, what stops one rank stops all: each raises its own error, or `RankError` in the words of
    the one that has stopped first. A rank that neither hears it nor ends has its process ended."""
    if accelerator.num_processes == 1:
        yield
        return
    words: Words | None = None
    try:
        words = Words(accelerator)
        yield
    except BaseException as error:
        if isinstance(error, RankError):
            raise
        heard = words.heard() if words else ""
        lost = isinstance(error, RuntimeError) and (
            heard
            or isinstance(error, distributed.DistBackendError)
            or any(word in str(error) for word in GONE)
        )
        if not lost:
            if words:
                words.leave(error)
            raise
        # By its words alone a failure of this rank's own looks the same: so they are told, and left for
        # the others, unless one that has stopped first leaves its own.
        why = f"another rank has stopped: its own message says why (here: {_line(error)})"
        if words and not heard:
            heard = words.leave_unless_heard(error)
        raise RankError(
            f"rank {accelerator.process_index} stops here, since {heard or why}"
        ) from error
    finally:
        if words:
            words.close()


def _line(error: BaseException) -> str:
    """What an error says, in a line that can be sent: names of files may hold what is no text."""
    said = " ".join(str(error).split()) or type(error).__name__
    return said.encode(errors="backslashreplace").decode()


class Words:
    """What one of this run's ranks has left for all. Of one process, and looked for until `close`."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.rank, self.ranks = accelerator.process_index, accelerator.num_processes
        first = self.rank - accelerator.local_process_index
        near = int(os.environ.get("LOCAL_WORLD_SIZE") or self.ranks)
        # A launcher may keep the store for longer than one run.
        (run,) = broadcast_object_list([token_hex(4)])
        # A connection of its own to where the ranks have found each other: the other is taken while a
        # rank waits for one that comes late.
        place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        shared = distributed.TCPStore(*place, is_master=False, wait_for_workers=False)
        self.store = distributed.PrefixStore(f"stopped-{run}", shared)
        self.found, self.seen, self.reading, self.over = "", "", Lock(), Event()
        self.ending = Lock()
        self.pulse = Pulse(self.store, self.rank, self.ranks, range(first, first + near))
        Thread(target=self._look, name="words of other ranks", daemon=True).start()
        Thread(target=self._watch, name="whether other ranks live", daemon=True).start()

    def heard(self) -> str:
        """What was left, if anything was and the store is still there to say so."""
        if self.found:  # the store of a process that is stopped answers nobody
            return self.found
        with self.reading, suppress(RuntimeError):
            if not self.found and self.store.check([WORDS]):
                self.found = self.store.get(WORDS).decode()
                self.store.add(READ, 1)
        return self.found

    def leave(self, error: BaseException) -> None:
        """Tell all others why this rank stops, unless one has done so before; they have read it when
        this returns, or will not."""
        words = f"rank {self.rank} has stopped: {_line(error)}"
        self.pulse.tell(words)
        with suppress(RuntimeError):
            self.store.compare_set(WORDS, "", words)
            self.heard()
            end = time.monotonic() + LINGER
            while self.store.add(READ, 0) < self.ranks and time.monotonic() < end:
                time.sleep(0.05)

    def leave_unless_heard(self, error: BaseException) -> str:
        """What another rank leaves within a moment, or what is seen of it; else this one leaves what it
        has met with, so that all stop. Returns what was left by another."""
        end = time.monotonic() + WITHIN
        while not (found := self.heard()) and time.monotonic() < end:
            time.sleep(0.05)
        if not (found := found or self.seen):
            self.leave(error)
        return found

    def close(self) -> None:
        self.heard()
        self.over.set()
        self.pulse.tell()

    def _look(self) -> None:
        while not self.heard():
            if self.over.wait(EVERY):
                return
        self._end()

    def _watch(self) -> None:
        """What is seen of a rank that has left no words within a moment is left for it."""
        while not (seen := self.pulse.look(EVERY)) and not self.over.is_set():
            pass
        if seen:
            self.seen = seen
            self.over.wait(WITHIN)
            if not self.found and not self.over.is_set():
                self.found = seen
                self.pulse.tell(seen)
                with suppress(RuntimeError):
                    self.store.compare_set(WORDS, "", seen)
                    self.store.add(READ, 1)
            if self.found and not self.over.is_set():
                self._end()
        self.pulse.close()

    def _end(self) -> None:
        """End the process if it goes on for too long."""
        if not self.ending.acquire(blocking=False):
            return
        if _finishing:
            told = f"rank {self.rank}: {self.found}; what is being written here is finished first"
            print(told, file=sys.stderr, flush=True)
        end = time.monotonic() + FINISH

        def writes() -> bool:
            return bool(_finishing) and time.monotonic() < end

        busy = True
        while busy or writes():
            # The whole grace is given after what was written, too: only then this rank begins to stop.
            busy = writes()
            if self.over.wait(EVERY if busy else GRACE):
                return
        print(f"rank {self.rank} stops here, since {self.found}", file=sys.stderr, flush=True)
        os._exit(1)
