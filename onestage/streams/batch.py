"""Records of a step to forest rows and their feedback."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onestage.forest.packing import Row, pack
from onestage.records.record import KINDS
from onestage.streams.encoded import Encoded


@dataclass(frozen=True, slots=True)
class Batch:
    """Records and the rows they were packed into; responses are numbered through the batch.

    `first_N[r]` is the number of record r's first response.
    """

    records: tuple[Encoded, ...]
    rows: tuple[Row, ...]
    first: tuple[int, ...]


def pack_records(records: Sequence[Encoded], tokens_per_row: int, *, share: bool = True) -> Batch:
    """Pack a step's records (see `forest.packing.pack`)."""
    counts = [len(record.scores) for record in records]
    first = tuple(int(n) for n in np.cumsum([0, *counts])[:-1])
    paths = [
        [path.renumbered(start) for path in record.paths]
        for record, start in zip(records, first, strict=True)
    ]
    return Batch(tuple(records), tuple(pack(paths, tokens_per_row, share=share)), first)


def by_path(row: Row, batch: Batch, value_K: np.ndarray) -> dict[int, tuple[np.ndarray, ...]]:
    """A value of each scored token of a row as the paths of its records have them, by record number."""
    found, at = {}, 0
    for number in row.records:
        parts = []
        for path in batch.records[number].paths:
            size = sum(end - start for start, end in path.spans)
            parts.append(value_K[at : at + size])
            at += size
        found[number] = tuple(parts)
    return found


@dataclass(frozen=True, slots=True)
class FeedbackArrays:
    """`objectives.contract.Feedback` as plain arrays, for some of a batch's records."""

    kind_N: np.ndarray
    score_N: np.ndarray
    weight_N: np.ndarray
    tokens_N: np.ndarray
    record_N: np.ndarray
    pair_P2: np.ndarray
    role_N: np.ndarray


def feedback_arrays(records: Sequence[Encoded]) -> FeedbackArrays:
    """What is known of the responses of some records, in order."""
    kinds: list[int] = []
    tokens: list[int] = []
    owners: list[int] = []
    scores: list[float] = []
    weights: list[float] = []
    pairs: list[tuple[int, int]] = []
    roles: list[int] = []
    for number, record in enumerate(records):
        if record.kind == "pair":
            pairs.append((len(kinds), len(kinds) + 1))
        lengths = [0] * len(record.scores)
        for path in record.paths:
            for (start, end), response in zip(path.spans, path.responses, strict=True):
                lengths[response] += end - start
        kinds += [KINDS.index(record.kind)] * len(lengths)
        scores += record.scores
        weights += [record.weight] * len(lengths)
        tokens += lengths
        owners += [number] * len(lengths)
        roles += record.sampled.roles if record.sampled else [0] * len(lengths)
    return FeedbackArrays(
        np.asarray(kinds, np.int64),
        np.asarray(scores, np.float32),
        np.asarray(weights, np.float32),
        np.asarray(tokens, np.int64),
        np.asarray(owners, np.int64),
        np.asarray(pairs, np.int64).reshape(-1, 2),
        np.asarray(roles, np.int64),
    )
