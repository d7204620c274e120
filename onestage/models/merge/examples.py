"""Real tokens to measure on: what records call good, and prompts for comparing models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onestage.data.encoded import Encoded
from onestage.data.kinds import FEEDBACK
from onestage.data.reading import read
from onestage.data.record import Refusal
from onestage.data.stream import Stream
from onestage.data.tokenize import Encoder
from onestage.data.trees import TokenPath

PROMPTS = (
    "Question: What is the capital of France?\nAnswer:",
    "The quick brown fox jumps over the lazy dog, and then",
    "def add(a, b):\n    return",
    "Once upon a time there was a small village by the sea.",
    "Translate to German: Good morning, how are you?",
    "2 + 3 = 5, 10 - 4 =",
)
"""What models are compared on where no data are given."""
PROMPT_TOKENS = 64
"""Tokens of a prompt that are compared."""


@dataclass(frozen=True, slots=True)
class Example:
    """A response that is good, in its context."""

    path: TokenPath
    weight: float


def read_records(
    stream: Stream, tokenizer: Any, max_length: int
) -> tuple[list[Encoded], list[Refusal]]:
    """The records of a stream and the rows that are none. ValueError where no record is left."""
    records: list[Encoded] = []
    refused: list[Refusal] = []
    for item in Encoder(tokenizer, max_length).encode_responses(read(stream)):
        if isinstance(item, Refusal):
            refused.append(item)
        else:
            records.append(item)
    if not records:
        why = f" ({refused[0].where}: {refused[0].reason})" if refused else ""
        raise ValueError(f"{stream.path}: no row can be used{why}")
    return records, refused


def good_examples(records: Iterable[Encoded], min_score: float | None = None) -> list[Example]:
    """The good responses: demonstrations, text, chosen sides, thumbs up, scores from `min_score` on.

    ValueError for scores without `min_score`, or where nothing is good.
    """
    found: list[Example] = []
    for record in records:
        if FEEDBACK[record.kind].scale == "graded" and min_score is None:
            raise ValueError(
                f"{record.id} is of kind {record.kind}, whose good side is not known: say from which "
                "score on a response is good with --min-score"
            )
        for path in _good_paths(record, min_score):
            found.append(Example(path, record.weight))
    if not found:
        raise ValueError(
            "no response in the data is good: demonstrations, text, chosen sides, thumbs "
            "up and scores from --min-score on are"
        )
    return found


def _good_paths(record: Encoded, min_score: float | None) -> Sequence[TokenPath]:
    kind = FEEDBACK[record.kind]
    if kind.paired:
        return record.paths[:1]
    if kind.scale == "none":
        return () if kind.asked else record.paths
    least = 1.0 if kind.scale == "thumb" or min_score is None else min_score
    scored = zip(record.paths, record.scores, strict=True)
    return [path for path, score in scored if score >= least]


def prompts(tokenizer: Any, records: Sequence[Encoded] = ()) -> list[np.ndarray[Any, Any]]:
    """Token ids (T <= 64 each) to compare models on: the first records' texts, or fixed ones."""
    if records:
        return [record.paths[0].ids[:PROMPT_TOKENS] for record in records[: len(PROMPTS)]]
    return [np.asarray(tokenizer(text).input_ids[:PROMPT_TOKENS]) for text in PROMPTS]
