"""A Python function of yours as a reward.

    def brief(completion, target, **others):
        return 1.0 if str(target) in completion else 0.0

It is called for one answer, by name, with those of these that its signature has: `completion`, `prompt`,
`hint`, `response` (hint and completion), `ended`, `tokens`, `turns`, and the record's columns. It runs
in the pool, so it may hang or crash, and it must not need what only the training process has.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from onestage.config import module_of, nearest
from onestage.rollout.rewards import Answer
from onestage.rollout.rewards import _pool as pool
from onestage.rollout.rewards._checker import Checker

OURS = ("completion", "prompt", "hint", "response", "ended", "tokens", "turns")


@dataclass(frozen=True)
class Function(Checker):
    path: str = ""
    """`package.module:function` or `path/to/file.py:function`."""

    _place: ClassVar[str]
    """The same, wherever one stands."""

    def __post_init__(self) -> None:
        super().__post_init__()
        where, colon, name = self.path.rpartition(":")
        if not colon or not where or not name.isidentifier():
            raise ValueError(
                f"path {self.path!r}: expected package.module:function or path/to/file.py:function"
            )
        # The pool stays in the folder where it began, whose file of that name is another.
        object.__setattr__(self, "_place", f"{_absolute(where)}:{name}")
        pool.shared().set_up(self)

    def prepare(self) -> None:
        _load(self._place)

    def judge(self, answer: Answer) -> float:
        function, wanted, open_ended = _load(self._place)
        given = {name: getattr(answer, name) for name in OURS}
        # What was sampled stands last: no column of the data may pass for it.
        given = {**answer.facts, **given}
        return function(**(given if open_ended else {k: given[k] for k in wanted if k in given}))

    def check(self, facts: Mapping[str, Any]) -> None:
        function, _, _ = _load(self._place)
        missing = [
            name
            for name, parameter in inspect.signature(function).parameters.items()
            if parameter.default is parameter.empty
            and parameter.kind is not parameter.VAR_KEYWORD
            and name not in OURS
            and name not in facts
        ]
        if missing:
            raise ValueError(
                f"{self.path} needs {', '.join(missing)};"
                f" a record has {', '.join(facts) or 'no columns'}"
            )


def _absolute(where: str) -> str:
    return str(Path(where).expanduser().absolute()) if where.endswith(".py") else where


@lru_cache(maxsize=8)
def _load(path: str) -> tuple[Callable[..., Any], frozenset[str], bool]:
    """The function, the names it takes, and whether it takes any."""
    where, _, name = path.rpartition(":")
    module = _module(where)
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise ValueError(f"{where} has no function {name!r}{nearest(name, known)}")
    parameters = inspect.signature(function).parameters.values()
    for parameter in parameters:
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            raise ValueError(f"{path}: {parameter} cannot be given by name")
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    return function, frozenset(p.name for p in parameters), open_ended


def _module(where: str) -> ModuleType:
    if where.endswith(".py") and not Path(where).expanduser().is_file():
        raise ValueError(f"{where}: no such file")
    try:
        return module_of(where)
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"{where} cannot be imported: {type(error).__name__}: {error}") from error
