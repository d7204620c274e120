"""Python programs as processes of their own that need not import anything again: this one, forked.

What a bench or a command says and does is the same; what starting an interpreter and importing torch
costs, some seconds for each of its processes, is saved. (That they can be started is tested beside.)
"""

from __future__ import annotations

import gc
import inspect
import os
import runpy
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState

PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
"""The ends of a process's three pipes, as the standard library names them; -1 where there is none."""
EXECUTE = inspect.signature(subprocess.Popen._execute_child)  # type: ignore[attr-defined]


class Forked(subprocess.Popen[Any]):
    """A process that is forked where it is told to run this interpreter, on a script or a module."""

    def _execute_child(self, *given: Any, **named: Any) -> None:
        told = EXECUTE.bind(self, *given, **named).arguments
        words = [str(word) for word in told["args"]]
        if words[0] != sys.executable:
            super()._execute_child(*given, **named)  # type: ignore[misc]
            return
        pipes = {name: told[name] for name in PIPES}
        self.pid = os.fork()
        if not self.pid:
            if told["start_new_session"]:
                os.setsid()
            _become(words[1:], pipes, told["env"], told["cwd"])
        self._child_created = True
        self._close_pipe_fds(*pipes.values())  # type: ignore[attr-defined]


def run(words: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """`subprocess.run` of a program, and of all programs of this interpreter that it starts itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", Forked)
        return subprocess.run(words, capture_output=True, text=True, **options)


def _become(words: Sequence[str], pipes: dict[str, int], env: Any, cwd: Any) -> None:
    """Be the program; never returns."""
    code = 1
    try:
        for number, end in enumerate(pipes[name] for name in ("p2cread", "c2pwrite", "errwrite")):
            if end not in (-1, number):
                os.dup2(end, number)
        for end in {end for end in pipes.values() if end > 2}:
            os.close(end)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - to the end of the process
        sys.stdout, sys.stderr = (open(n, "w", buffering=1, closefd=False) for n in (1, 2))  # noqa: SIM115
        if env is not None:
            os.environ.clear()
            os.environ.update(env)
        os.chdir(cwd or ".")
        warnings.resetwarnings()  # pytest's make errors of them
        for state in (AcceleratorState, PartialState, GradientState):
            state._shared_state.clear()
        gc.freeze()
        # A fork makes torch's pool of threads anew at its next use; where the threads that load a model
        # are the first to use it, two of them at once, one finds none ("Invalid thread pool!").
        torch.set_num_threads(torch.get_num_threads())
        code = _ran([word for word in words if word != "-u"])
    except BaseException as error:
        inside = (
            error.__traceback__ and error.__traceback__.tb_next
        )  # from `runpy` on, as elsewhere
        traceback.print_exception(error.with_traceback(inside and inside.tb_next))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _ran(words: Sequence[str]) -> int:
    """The exit code of a program."""
    module = words[0] == "-m"
    name, sys.argv = (words[1] if module else words[0]), [*words[int(module) :]]
    program: Callable[..., Any] = runpy.run_module if module else runpy.run_path
    sys.path.insert(0, os.getcwd() if module else str(Path(name).parent))
    try:
        program(name, run_name="__main__")
    except SystemExit as ended:
        if isinstance(ended.code, str):
            sys.stderr.write(f"{ended.code}\n")
            return 1
        return int(ended.code or 0)
    return 0
