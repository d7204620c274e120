"""A record as token ids, and what is added to it when its responses are sampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onestage.data.record import Kind
from onestage.data.trees import TokenPath

Floats = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Sampled:
    """What is known of responses because they were sampled in this run."""

    roles: tuple[int, ...]
    """Of each response: its place in `records.record.ROLES`."""
    kept: Mapping[str, tuple[Floats, ...]] = field(default_factory=dict)
    """Numbers from before the first update on them, by name: of each path's scored tokens."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A record as token paths. Responses are numbered from 0; `scores` has one of each, NaN if none.

    kind, weight, source, id: as in `Record`. A pair's paths are (chosen, rejected). `cut` is the
    number of prompt tokens that were left out to fit.

    A `check` record as it is read has no responses (no scores): its first path is the prompt, and a
    second one, if there is a worked answer, is prompt and answer, scored sentence by sentence. What the
    policy answered to it comes out as another record of the same kind, with `sampled`.
    """

    kind: Kind
    paths: tuple[TokenPath, ...]
    scores: tuple[float, ...]
    weight: float
    source: str
    id: str
    cut: int = 0
    about: str = ""
    """Of a `check` record: what a reward is told, as JSON (`checks.About`)."""
    visit: int = 0
    """Of a `check` record that was drawn: how many records its stream had given before."""
    sampled: Sampled | None = None

    @property
    def asks(self) -> bool:
        """Whether it has no responses yet."""
        return self.kind == "check" and self.sampled is None

    @property
    def tokens(self) -> int:
        """Tokens of all paths, shared ones counted as often as they stand."""
        return sum(len(path.ids) for path in self.paths)

    @property
    def scored(self) -> int:
        """Scored tokens of all responses."""
        return sum(end - start for path in self.paths for start, end in path.spans)


def first_token(encoding: Any, offsets: Sequence[tuple[int, int]], char: int, stop: int) -> int:
    """Index of the first token that reaches beyond `char` (the length, if none does).

    The text is scanned for a character that has a token; tokens just before it may be white space
    whose offsets the tokenizer trimmed to nothing.
    """
    token = None
    for position in range(char, stop):
        token = encoding.char_to_token(position)
        if token is not None:
            break
    if token is None:
        token = len(offsets)
        while token and offsets[token - 1] == (0, 0):
            token -= 1
    while token and offsets[token - 1][1] > char:
        token -= 1
    return int(token)
