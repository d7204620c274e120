"""Blocks of work on several processes: the results of one, in the same order.

Processes are forked: they have the tokenizer and what a template was compiled to without a message, and
work begins at once. Only blocks and what is made of them are sent. Few are under way at a time, so
memory does not grow with the data; and a process ends with the one that forked it, however that ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import chain, islice
from multiprocessing.connection import wait
from typing import Any, TypeVar

Block = TypeVar("Block")
Made = TypeVar("Made")

AHEAD = 2
"""Blocks under way for each process: one that is worked on, one that waits."""
OWN_THREADS = "TOKENIZERS_PARALLELISM"
"""The environment's word for whether a tokenizer works in threads, which a fork has none of."""


def in_order(
    work: Callable[[Block], Made], blocks: Iterable[Block], processes: int
) -> Iterator[Made]:
    """`map(work, blocks)`, by so many processes. A single block is worked on here.

    `work` reaches them by the fork, so it may be anything; blocks and results are pickled. Raises what
    `work` raises, and `RuntimeError` where a process is killed.
    """
    source = iter(blocks)
    first = list(islice(source, 2))
    if processes == 1 or len(first) < 2:
        yield from map(work, chain(first, source))
        return
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("fork"), _begin, (work,))
    try:
        with _threadless():  # all are forked when the first block is handed in
            asked = deque(pool.submit(_do, block) for block in first)
        asked.extend(pool.submit(_do, one) for one in islice(source, AHEAD * processes - 2))
        while asked:
            made = asked.popleft().result()
            asked.extend(pool.submit(_do, block) for block in islice(source, 1))
            yield made
    except BrokenProcessPool as error:
        raise RuntimeError(
            f"one of the {processes} processes that encode rows was killed, as a system does where "
            "memory is short; encode with fewer (train.dataset_num_proc, --num-proc)"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_work: Callable[[Any], Any]


def _begin(work: Callable[[Any], Any]) -> None:
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent ends these
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_parent()


def end_with_parent() -> None:
    """Let this process end when the one that began it has ended, however that was: a parent that is
    killed has no time to say that there is no more work."""
    threading.Thread(target=_wait_for_its_end, daemon=True).start()


def _do(block: Any) -> Any:
    return _work(block)


def _wait_for_its_end() -> None:
    above = multiprocessing.parent_process()
    assert above is not None
    wait([above.sentinel])
    os._exit(1)


@contextmanager
def _threadless() -> Iterator[None]:
    """Processes that are forked inside do not use a tokenizer's threads, and say nothing of it."""
    before = os.environ.get(OWN_THREADS)
    os.environ[OWN_THREADS] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[OWN_THREADS]
        else:
            os.environ[OWN_THREADS] = before
