"""Chat templates that may not end: a template is a program, and comes with a model folder.

transformers runs them in a sandbox that bounds neither time nor memory. Here a rendering has seconds of
computing and a part of the memory, and what no signal could interrupt (powers, numbers in the millions)
is refused before it runs.
"""

from __future__ import annotations

import mmap
import os
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from jinja2 import Environment, TemplateError

SECONDS = 10.0
"""Of computing that one rendering may take; one of the real models takes under a millisecond."""
GREATEST = 1_000_000
"""Number in a template."""
LONGEST = 64_000_000
"""Characters of what is rendered."""
MEMORY = 2 << 30
"""Bytes that one rendering may take beside what the process has."""


class EndlessTemplateError(ValueError):
    """A chat template that does not end, or makes too much: of the template, not of a row."""


def refuse_endless(template: str) -> None:
    """Raise `EndlessTemplateError` for numbers and powers that no deadline could bound."""
    try:
        found = [(kind, text) for _, kind, text in Environment().lex(template)]
    except TemplateError:
        return  # rendering says what is wrong with it
    for kind, text in found:
        large = kind == "integer" and int(text, 0) > GREATEST
        if large or (kind == "operator" and text == "**"):
            raise EndlessTemplateError(
                f"the chat template computes with {text}, which may not end; numbers up to "
                f"{GREATEST:,} and no powers are allowed: set model.chat_template to another one"
            )


@contextmanager
def bounded() -> Iterator[None]:
    """Raise `EndlessTemplateError` in what takes more than `SECONDS` of computing or `MEMORY`; in the
    main thread, the only one that signals reach."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise EndlessTemplateError(
            f"the chat template was not done after {SECONDS:g} s with one conversation; set "
            "model.chat_template to another one"
        )

    # Of this process's computing, so that a machine that is busy, or sleeps, is not held against it.
    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        with _little_memory():
            yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@contextmanager
def _little_memory() -> Iterator[None]:
    """Let what is inside have `MEMORY` bytes; a text that is repeated or doubled asks for all of it at
    once, before anyone could look at its length."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    try:
        most = _address_space() + MEMORY
        allowed = [limit for limit in before if limit != resource.RLIM_INFINITY]
        resource.setrlimit(resource.RLIMIT_AS, (min([most, *allowed]), before[1]))
    except (OSError, ValueError):  # not Linux: without this bound
        yield
        return
    try:
        yield
    except MemoryError as error:
        raise EndlessTemplateError(
            f"the chat template took more than {MEMORY >> 30} GB of memory for one conversation; set "
            "model.chat_template to another one"
        ) from error
    finally:
        with suppress(ValueError):
            resource.setrlimit(resource.RLIMIT_AS, before)


def _address_space() -> int:
    """Bytes that the process has."""
    # There are a million renderings, and opening the file takes longer than all else here. It says of
    # the process that opened it, so a child opens its own.
    process = os.getpid()
    if process not in _statm:
        for file in _statm.values():
            os.close(file)
        _statm.clear()
        _statm[process] = os.open("/proc/self/statm", os.O_RDONLY)
    return int(os.pread(_statm[process], 64, 0).split()[0]) * mmap.PAGESIZE


_statm: dict[int, int] = {}
"""The open file, by process."""


def require_short(text: str) -> str:
    """The text; raises `EndlessTemplateError` where it is no conversation's."""
    if len(text) > LONGEST:
        raise EndlessTemplateError(
            f"the chat template made {len(text):,} characters of one conversation; set "
            "model.chat_template to another one"
        )
    return text
