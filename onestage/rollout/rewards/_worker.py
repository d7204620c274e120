"""The process that runs checkers: reads chunks of answers, writes a line for each thing that happens.

Knows little but the standard library and what the checkers import. In: frames of a length and a
pickle. Out: JSON, a line each, so that nothing that comes back is ever unpickled:

    ["ready"]                          a chunk's checker is set up, or ["unready", why]
    ["begun", i]                       answer i: its deadline runs from here
    ["reward", i, x]                   or ["failure", i, sort, reason]
    ["done"]                           the chunk
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pickle
import queue
import signal
import struct
import sys
import threading
from collections.abc import Callable
from typing import Any, BinaryIO

from onestage.config import module_of

LENGTH = struct.Struct("!Q")
GRACE = 1.0
"""Seconds after the deadline at which a worker ends itself, should nobody have ended it."""
SHOWN = 300
"""Characters of an exception's message that are told."""


def serve() -> None:
    """The whole life of a worker. Arguments: bytes of memory that it may take, 0 for no limit."""
    limit_memory(int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    frames, lines = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "w")
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)  # what a checker prints must not end up among the lines

    def say(*line: Any) -> None:
        lines.write(json.dumps(line) + "\n")
        lines.flush()

    # Read by a thread of its own, so that the end of the parent is noticed while a checker works.
    jobs: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(frames, jobs), daemon=True).start()
    current, judge = b"", None
    while True:
        kind, deadline, answers = pickle.loads(jobs.get())
        if kind != current:
            judge, why = _set_up(kind)
            current = kind if judge else b""
            if judge is None:
                say("unready", why)
                continue
        say("ready")
        assert judge is not None
        for number, answer in answers:
            say("begun", number)
            _alarm(deadline + GRACE)
            outcome = _outcome(judge, answer)
            _alarm(0)
            if isinstance(outcome, float):
                say("reward", number, outcome)
                continue
            say("failure", number, *outcome)
            if outcome[0] == "crash":  # out of memory: start again with all of it
                os._exit(3)
        say("done")


def limit_memory(limit: int) -> None:
    """Of the address space; where the system knows no such limit, there is none."""
    if not limit:
        return
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _listen(frames: BinaryIO, jobs: queue.SimpleQueue[bytes]) -> None:
    """Take frames in; the end of them is the end of the parent, and of this process."""
    try:
        while len(head := frames.read(LENGTH.size)) == LENGTH.size:
            jobs.put(frames.read(LENGTH.unpack(head)[0]))
    finally:
        os._exit(0)


def _alarm(seconds: float) -> None:
    """The kernel ends the process then: a parent that died cannot, and a thread here may not get
    the interpreter's lock. `judge` may use the alarm for itself; then the parent alone watches."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _set_up(kind: bytes) -> tuple[Callable[[Any], Any] | None, str]:
    try:
        place, sent = pickle.loads(kind)
        module_of(place)
        checker = pickle.loads(sent)
        checker.prepare()
    except Exception as error:
        return None, str(error) if isinstance(error, ValueError) else _told(error)
    return checker.judge, ""


def _outcome(judge: Callable[[Any], Any], answer: Any) -> float | tuple[str, str]:
    try:
        value = judge(answer)
    except MemoryError:
        return "crash", "out of memory"
    except (Exception, SystemExit) as error:
        # By name: a worker knows the checker's own module only.
        if type(error).__name__ == "NotJudged":
            return "undecided", str(error)[:SHOWN]
        return "raised", _told(error)
    try:
        if isinstance(value, complex) or not hasattr(type(value), "__float__"):
            return "value", f"not a number: {_shown(value)}"
        number = float(value)
    except Exception as error:
        return "value", f"not a number: {_told(error)}"
    return number if math.isfinite(number) else ("value", f"not finite: {number}")


def _told(error: BaseException) -> str:
    try:
        message = str(error)
    except Exception:
        message = "(its message cannot be shown)"
    return f"{type(error).__name__}: {message[:SHOWN]}"


def _shown(value: Any) -> str:
    try:
        return f"{type(value).__name__} {value!r:.{SHOWN}}"
    except Exception:
        return type(value).__name__
