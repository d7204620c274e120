"""A text read with some of its tokens partly as what the model would have said there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn


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
