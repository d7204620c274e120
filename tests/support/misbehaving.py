"""A checker whose answers say what it shall do wrong; workers of the pool import it."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onestage.rollout.rewards import Answer
from onestage.rollout.rewards._checker import Checker


def forever() -> float:
    while True:
        time.sleep(0.01)


def recurse() -> float:
    return recurse() + 1


def raise_unprintable() -> float:
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    raise Odd


def leave_a_child(file: str) -> float:
    child = subprocess.Popen(["sleep", "60"])
    Path(file).write_text(str(child.pid))
    return forever()


DEEDS: dict[str, Any] = {
    "sleep": forever,
    "compute": lambda: float(len(str(9**9**9))),  # holds the interpreter's lock for ever
    "segfault": lambda: ctypes.string_at(0),
    "exit": lambda: os._exit(7),
    "sys.exit": sys.exit,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "memory": lambda: len(bytearray(1 << 40)),
    "recursion": recurse,
    "zero": lambda: 1 / 0,
    "odd": raise_unprintable,
    "none": lambda: None,
    "nan": lambda: float("nan"),
    "inf": lambda: -float("inf"),
    "text": lambda: "0.5",
    "complex": lambda: 1j,
    "huge": lambda: 10**400,
    "true": lambda: True,
    "int": lambda: 3,
    "print": lambda: print("to the terminal") or 0.25,
    "input": lambda: len(sys.stdin.read()),
    "pid": os.getpid,
    "modules": lambda: float("torch" in sys.modules),
    "path": lambda: float(len(sys.path)),
}


@dataclass(frozen=True)
class Misbehaving(Checker):
    ready: str = ""

    def prepare(self) -> None:
        if self.ready == "slow":
            time.sleep(0.5)
        elif self.ready == "refused":
            raise ValueError("no such thing")
        elif self.ready == "broken":
            raise KeyError("k")
        elif self.ready == "dies":
            os._exit(1)

    def judge(self, answer: Answer) -> float:
        if answer.completion.startswith("child "):
            return leave_a_child(answer.completion.removeprefix("child "))
        deed = DEEDS.get(answer.completion)
        return deed() if deed else float(answer.completion)
