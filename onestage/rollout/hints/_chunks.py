"""Sentences of a worked solution, grouped in a few nearly equal chunks (UFT, the authors' code).

A solution of no more sentences than chunks has a chunk a sentence; a longer one is cut at
round(i * sentences / chunks), where a half goes to the even number as Python's `round` has it: nine
sentences in five chunks end at 2, 4, 5, 7 and 9.
"""

from __future__ import annotations


def boundaries(sentences: int, chunks: int = 5) -> list[int]:
    """Where chunks begin and end: chunk i holds sentences [b[i], b[i + 1]).

    Rises strictly from 0 to `sentences`; [0] for an empty solution. There are min(sentences, chunks)
    chunks, which is the `size` that a hint rule is given.
    """
    if sentences < 0 or chunks < 1:
        raise ValueError(
            f"needs at least 0 sentences and 1 chunk, got {sentences} sentences and {chunks} chunks"
        )
    if sentences <= chunks:
        return list(range(sentences + 1))
    # Python's own rounding, as in the authors' code: another one would cut elsewhere.
    return [round(i * sentences / chunks) for i in range(chunks)] + [sentences]
