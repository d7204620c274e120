"""An answered problem as flat arrays of numbers, to be sent to other ranks, and back.

A path is its token ids, how many they are, and its scored spans; an outcome, which is mostly texts,
travels as JSON. The problem itself is not sent: every rank has it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from onestage.data.encoded import Encoded, Sampled
from onestage.data.trees import TokenPath
from onestage.rollout.outcome import Outcome

Array = np.ndarray[Any, np.dtype[Any]]
SIZE = 8
"""Arrays of one answered problem."""


def packed(number: int, answered: Encoded, outcome: Outcome) -> list[Array]:
    """Problem `number` of those that all ranks know, answered: `SIZE` arrays."""
    paths, sampled = answered.paths, answered.sampled
    assert sampled is not None
    assert not sampled.kept  # what is kept is known later
    spans = [
        (*span, response)
        for path in paths
        for span, response in zip(path.spans, path.responses, strict=True)
    ]
    told = {field.name: getattr(outcome, field.name) for field in fields(outcome)}
    return [
        np.asarray([number], np.int64),
        np.concatenate([np.empty(0, np.int32), *(path.ids for path in paths)]),
        np.asarray([len(path.ids) for path in paths], np.int64),
        np.asarray([len(path.spans) for path in paths], np.int64),
        np.asarray(spans, np.int64).reshape(-1),
        np.asarray(sampled.roles, np.int64),
        np.asarray(answered.scores, np.float64),
        # Escaped, so that half a character of a broken text is one of these letters, too.
        np.frombuffer(json.dumps(told, default=np.generic.item).encode(), np.uint8),
    ]


def unpacked(
    arrays: Sequence[Array], problems: Sequence[Encoded]
) -> Iterator[tuple[int, Encoded, Outcome]]:
    """What `packed` was given, of one answered problem after another."""
    for place in range(0, len(arrays), SIZE):
        number, *parts, told = arrays[place : place + SIZE]
        yield int(number[0]), _answered(problems[int(number[0])], parts), _outcome(told)


def _answered(problem: Encoded, parts: Sequence[Array]) -> Encoded:
    ids, lengths, counts, flat, roles, scores = parts
    spans = iter(flat.reshape(-1, 3).tolist())
    paths = []
    for own, count in zip(np.split(ids, np.cumsum(lengths)[:-1]), counts.tolist(), strict=True):
        mine = [next(spans) for _ in range(count)]
        cut = tuple((start, end) for start, end, _ in mine)
        paths.append(TokenPath(own.copy(), cut, tuple(response for _, _, response in mine)))
    return answered_with(problem, paths, roles.tolist(), scores.tolist())


def answered_with(
    problem: Encoded, paths: Sequence[TokenPath], roles: Sequence[int], scores: Sequence[float]
) -> Encoded:
    """A problem with its responses: the same record, which needs no facts any more."""
    sampled = Sampled(tuple(roles))
    return replace(problem, paths=tuple(paths), scores=tuple(scores), sampled=sampled, about="")


def _outcome(told: Array) -> Outcome:
    content = json.loads(told.tobytes())
    rows = {name: tuple(content[name]) for name in ("rewards", "lengths", "ended")}
    parts = {name: tuple(values) for name, values in content["parts"].items()}
    return Outcome(**{**content, **rows, "parts": parts})
