"""A text read with some of its tokens partly as what the model would have said there.

Legend: T nodes of a row, U distinct scored nodes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import Tensor, nn

from onestage.data.packing import Row


def read_two_ways(row: Row) -> bool:
    """Whether some token is scored in one path of a row and stands in front of what is scored in another
    that only reads it: mixed for one and not for the other, so no one embedding will do for its node."""
    tree, node_U = row.tree, np.unique(row.tree.node_K)
    begins_T = np.zeros(len(tree) + 1, np.int64)
    begins_T[node_U] += 1
    np.subtract.at(begins_T, tree.exit_T[node_U], 1)
    scored_T = begins_T.cumsum()  # nodes on the way to each, itself included, that anybody scores
    mine = np.array([path.scored for path in row.paths if path.spans], np.int64)
    return bool((scored_T[tree.node_K[mine.cumsum() - 1]] != mine).any())


@contextlib.contextmanager
def mixing(embedding: nn.Module, place_U: Tensor, guess_U: Tensor, share: float) -> Iterator[None]:
    """Inside, the embeddings of the tokens at these places of a row are mixed, `share` of them with
    those of the guessed tokens. The model is given the true tokens, whatever else it makes of them."""
    guessed_UH = embedding(guess_U)

    def mixed(module: nn.Module, given: Any, out: Tensor) -> Tensor:
        moved_UH = (1 - share) * out[0, place_U] + share * guessed_UH
        return out.index_put((place_U.new_zeros(1), place_U), moved_UH)

    hook = embedding.register_forward_hook(mixed)
    try:
        yield
    finally:
        hook.remove()
