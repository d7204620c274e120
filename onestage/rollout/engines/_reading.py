"""Prompts read: side by side in one pass, or, where their lengths differ much, in several.

In one pass all are padded to the longest. Of 60 problems of GSM8K more than half of what is computed is
padding then; read in passes of nearly one length, they are put together afterwards.

Legend: B prompts read together, N some of them, T columns of the cache, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from onestage.rollout.engines._cache import replace_rows, roomy_cache

PADDING = 0.1
"""Of what a pass computes, at most, where a shorter pass would have less."""
AT_LEAST = 8
"""Prompts of a pass: of fewer, weights are read from memory for little."""
MUCH = 2048
"""Tokens of padding for which several passes are worth it."""


@dataclass(frozen=True)
class Read:
    """Prompts that were read: the logits (B, V) behind them, the cache, and the mask (B, T)."""

    logits_BV: Tensor
    cache: Any
    mask_BT: Tensor


def read(model: Any, prompts: Sequence[np.ndarray[Any, Any]]) -> Read:
    """Prompts in one forward pass, padded on the left."""
    longest, device = max(len(ids) for ids in prompts), model.device
    ids = np.zeros((len(prompts), longest), np.int64)
    mask = np.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = prompt
        mask[row, longest - len(prompt) :] = 1
    mask_BT = torch.from_numpy(mask).to(device)
    cache: Any = roomy_cache(model.config)
    logits_BV = model(
        input_ids=torch.from_numpy(ids).to(device),
        attention_mask=mask_BT,
        position_ids=(mask_BT.cumsum(-1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
    return Read(logits_BV, cache, mask_BT)


def read_apart(model: Any, prompts: Sequence[np.ndarray[Any, Any]]) -> Read:
    """Prompts, the longest first, in passes of nearly one length, put together as if by `read`."""
    first, *others = passes([len(ids) for ids in prompts])
    begun = read(model, prompts[:first])
    if not others:
        return begun
    # The rows of the others are filled with anything at first.
    row_B = torch.arange(len(prompts), device=model.device) * 0
    row_B[:first] = torch.arange(first, device=model.device)
    begun.cache.reorder_cache(row_B)
    logits_BV, mask_BT = begun.logits_BV[row_B], begun.mask_BT[row_B]
    for size in others:
        part = read(model, prompts[first : first + size])
        row_N = torch.arange(size, device=model.device)
        place_N, first = row_N + first, first + size
        replace_rows(begun.cache, place_N, part.cache, row_N, 0)
        logits_BV[place_N] = part.logits_BV
        mask_BT[place_N] = 0
        mask_BT[place_N, -part.mask_BT.shape[1] :] = part.mask_BT
    return Read(logits_BV, begun.cache, mask_BT)


def padding(lengths: Sequence[int]) -> int:
    """Tokens of padding where all are read in one pass."""
    return max(lengths, default=0) * len(lengths) - sum(lengths)


def worth_several(lengths: Sequence[int]) -> bool:
    """Whether so much would be padding that prompts are to be read in several passes."""
    return padding(lengths) >= MUCH


def passes(lengths: Sequence[int]) -> list[int]:
    """How many prompts, of falling lengths, are read in each pass."""
    if not worth_several(lengths):
        return [len(lengths)]
    found, start = [], 0
    while start < len(lengths):
        size = min(AT_LEAST, len(lengths) - start)
        while start + size < len(lengths):
            more = lengths[start : start + size + 1]
            if padding(more) > PADDING * more[0] * len(more):
                break
            size += 1
        found.append(size)
        start += size
    return found
