"""Answers to other prompts: what KTO's published reference point is measured on.

A policy that has come to like answers as such, whatever was asked, gives them more log-probability
behind any prompt. So each answer is also laid behind a prompt that it does not belong to, and looked at
there. Tokens are taken as they stand, as the authors' code does it.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from onestage.data.encoded import Encoded, Sampled
from onestage.data.record import ROLES
from onestage.data.trees import TokenPath


def with_strangers(record: Encoded, other: Encoded) -> Encoded:
    """The record, and behind each of its prompts an answer of another one, which weighs nothing.

    As many responses more as it has paths; where that has fewer, some stand twice. An answer that would
    make the path longer than both it comes of is cut there.
    """
    size = len(record.scores)
    paths = [
        _behind(path, other.paths[n % len(other.paths)], size + n)
        for n, path in enumerate(record.paths)
    ]
    roles = [ROLES.index("response")] * size + [ROLES.index("stranger")] * len(paths)
    return replace(
        record,
        paths=(*record.paths, *paths),
        scores=(*record.scores, *([math.nan] * len(paths))),
        weights=(*record.weights, *([1.0] * len(paths))) if record.weights else (),
        sampled=Sampled(tuple(roles)),
    )


def _behind(path: TokenPath, other: TokenPath, number: int) -> TokenPath:
    """A path's prompt with the other's answer, as the response of a number."""
    moved, longest = path.opening - other.opening, max(len(path.ids), len(other.ids))
    end = min(other.spans[-1][1] + moved, longest)
    ids = np.concatenate([path.ids[: path.opening], other.ids[other.opening : end - moved]])
    spans = [(start + moved, min(stop + moved, end)) for start, stop in other.spans]
    kept = tuple((start, stop) for start, stop in spans if start < stop)
    return TokenPath(ids.astype(np.int32), kept, (number,) * len(kept))
