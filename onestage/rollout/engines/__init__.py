"""What samples the policy: prompts in, completions out, whatever engine makes them.

An engine is a dataclass of its options, one a file of this package (`Plugins`). What is drawn depends
on a request's `key` alone and not on what else is in its batch, up to the rounding of the model's own
arithmetic: a run that was killed draws the same again, and so does one on more processes.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from onestage.config import Plugins
from onestage.data.encoded import Floats
from onestage.data.trees import Ids
from onestage.randomness import generator


@dataclass(frozen=True, slots=True)
class Decoding:
    """How tokens are drawn. Temperature 0 is greedy; the rest is as transformers names it."""

    max_completion_length: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    stop: tuple[str, ...] = ()
    """Texts behind which nothing is wanted: an engine may end a completion there, or go on."""

    def __post_init__(self) -> None:
        if self.max_completion_length < 1:
            raise ValueError(
                f"max_completion_length must be at least 1, got {self.max_completion_length}"
            )
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature must be at least 0, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if self.top_k < 0 or not 0 <= self.min_p <= 1:
            raise ValueError(
                f"top_k must be at least 0 and min_p in [0, 1], got {self.top_k} and {self.min_p}"
            )


@dataclass(frozen=True, slots=True)
class Request:
    """Completions wanted behind some token ids."""

    ids: Ids
    count: int
    key: str
    """Decides the random numbers of its completions."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What was drawn."""

    ids: Ids
    """At least one; the end token is the last of them where it `ended`."""
    ended: bool
    """Whether it ended by itself, within the limit."""
    logp: Floats
    """The engine's log-probabilities of the tokens at temperature 1, to compare with the policy's."""


class Engine(abc.ABC):
    """An engine, bound to a policy's model and its tokenizer.

    A dataclass whose fields are its options, but for `model` and `tokenizer`, which are filled in.
    """

    tolerance: float | None = None
    """Of an engine that runs a copy of the policy: how far its log-probabilities may be from the
    policy's own (`_agreement`). None: it runs the policy itself, there is nothing to compare."""
    on_gap: Literal["stop", "warn"] = "stop"
    """What happens beyond."""
    remarks: Sequence[str] = ()
    """What the user should know of how it samples; each is said once, as soon as it stands here."""

    @abc.abstractmethod
    def __call__(self, requests: Sequence[Request], how: Decoding) -> list[list[Completion]]:
        """As many completions of each request as it wants, in order. Raises `ValueError` for a prompt
        without tokens."""

    def sync(self) -> None:  # noqa: B027 - an engine that runs the policy itself has nothing to do
        """The policy's weights have changed."""

    def close(self) -> None:  # noqa: B027
        """Let go of processes and connections."""


def uniforms(key: str, number: int, count: int) -> Floats:
    """`count` numbers in [0, 1) for the `number`-th completion of a request: a function of both."""
    return generator(f"{key}/{number}").random(count, dtype=np.float32)


PLUGINS = Plugins("rollout engine", __name__, Engine, hidden=("model", "tokenizer"))  # type: ignore[type-abstract]
names, find = PLUGINS.names, PLUGINS.find


def make(given: Any, model: Any, tokenizer: Any) -> Engine:
    """An engine with its options checked, for a policy's model."""
    return PLUGINS.make(given, {"model": model, "tokenizer": tokenizer})


def __getattr__(name: str) -> Any:
    """`onestage.rollout.engines.Transformers`: the file is read when the class is asked for."""
    return PLUGINS.by_class(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *(find(name).__name__ for name in PLUGINS.built_in())})
