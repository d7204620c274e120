"""Attention over a forest, through transformers' own attention and mask interfaces.

A query i may see a key j iff `j <= i < exit[j]` (and, in a sliding-window layer, iff their positions
on the path are less than a window apart). On the CPU that rule becomes a dense boolean mask; on CUDA
a FlexAttention block mask. Both are handed to the model as a 4-D mask, which transformers uses as
it is.

`forest_attention` is registered under the name "onestage_forest": scaled-dot-product attention, tree
by tree. Trees never see each other, so a row of many trees needs the diagonal blocks of its mask
only, and a tree without branches needs no mask at all. A tree of few long branches (a group of answers
to one prompt) is cut into its chains: the queries of a chain meet its own keys and those of the chains
above it, not the other branches', which a mask would only throw away. It reads all this from the mask
it is given, which for a row is the list of its blocks behind the look of a mask: nothing of the size
of the row squared is ever made. It behaves as "sdpa" with any other.

FlexAttention's block mask is made from the extremes of `exit` and of the positions in each block of
128, for the same reason: `create_block_mask` asks the rule of every pair of a query and a key.

Legend: T nodes of a row.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask
from transformers import AttentionInterface, AttentionMaskInterface, PretrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "onestage_forest"
Mask = Tensor | BlockMask
Part = tuple[int, int, bool]
"""A tree of a row: its first node, one past its last, and whether it is a chain (no branches)."""
Block = tuple[int, tuple[int, ...], Tensor | None]
"""Queries that are run together: how many, the earlier blocks whose keys they see beside their own, and
the mask of these keys (to add to scores); None for a chain that sees itself alone."""
BLOCK = 128
"""Queries, and keys, in a block of FlexAttention's."""
CALL = 1 << 14
"""What a call of attention costs beside its work, in pairs of a query and a key."""


def windows(config: PretrainedConfig) -> dict[str, int | None]:
    """Window of each type of layer, None for full attention; the key "" stands for all layers.

    Models whose layers are of one type take one mask, models that mix types take a mapping.
    """
    window = getattr(config, "sliding_window", None)
    # Qwen2's configurations name a window also where it is switched off.
    if getattr(config, "use_sliding_window", True) is False:
        window = None
    kinds = set(getattr(config, "layer_types", None) or ())
    unknown = kinds - {"full_attention", "sliding_attention"}
    if unknown:
        raise NotImplementedError(f"no forest mask for layers of type {sorted(unknown)}")
    if len(kinds) <= 1:
        return {"": None if kinds == {"full_attention"} else window}
    return {"full_attention": None, "sliding_attention": window}


def reach(config: PretrainedConfig) -> int | None:
    """Tokens of a path up to which a row means the same as its paths; None where there is no such end.

    Rotary positions of these types turn by other angles in the whole batch as soon as one position in
    it is beyond what the model was first trained on, so short paths would change beside a long one.
    """
    given = getattr(config, "rope_parameters", None) or {}
    each = [one for one in (given, *given.values()) if isinstance(one, dict)]
    ends = []
    for one in each:
        kind = str(one.get("rope_type", ""))
        if kind == "longrope" or "dynamic" in kind:
            first = one.get("original_max_position_embeddings")
            ends += [n for n in (first, config.max_position_embeddings) if n is not None]
    return min(ends, default=None)


def dense_mask(exit_T: Tensor, position_T: Tensor, window: int | None) -> Tensor:
    """Boolean mask (1, 1, T, T): True where the query of a row may see the key of a column."""
    index_T = torch.arange(len(exit_T), device=exit_T.device)
    query, key = index_T[:, None], index_T[None, :]
    allowed = (key <= query) & (query < exit_T[None, :])
    if window is not None:
        allowed &= position_T[:, None] - position_T[None, :] < window
    return allowed[None, None]


def additive_mask(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """The same rule as numbers to add to scores, which is what eager attention takes."""
    zeros = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return zeros.masked_fill_(~allowed, torch.finfo(dtype).min)


def block_mask(exit_T: Tensor, position_T: Tensor, window: int | None) -> BlockMask:
    """FlexAttention's form of the same rule (1, 1, T, T): which blocks of keys a block of queries reads,
    and which of them whole, without the rule. Nothing is read back from the device."""

    def rule(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        allowed = (key <= query) & (query < exit_T[key])
        if window is not None:
            allowed = allowed & (position_T[query] - position_T[key] < window)
        return allowed

    size = len(exit_T)
    blocks = -(-size // BLOCK)
    first_B = torch.arange(blocks, device=exit_T.device) * BLOCK
    least_exit_B, last_exit_B = _extremes(exit_T, blocks)
    earlier = first_B[None, :] < first_B[:, None]
    some = (earlier & (last_exit_B[None, :] > first_B[:, None])) | torch.eye(
        blocks, dtype=torch.bool, device=exit_T.device
    )
    whole = earlier & (least_exit_B[None, :] >= first_B[:, None] + BLOCK)
    if window is not None:
        least_B, last_B = _extremes(position_T, blocks)
        some &= least_B[:, None] - last_B[None, :] < window
        whole &= last_B[:, None] - least_B[None, :] < window
    return BlockMask.from_kv_blocks(
        *_listed(some & ~whole),
        *_listed(whole),
        BLOCK_SIZE=BLOCK,
        mask_mod=rule,
        seq_lengths=(size, size),
    )


def _extremes(value_T: Tensor, blocks: int) -> tuple[Tensor, Tensor]:
    """Least and largest value in each block; in one that is not full the least is 0, so that it is
    never taken for one that is read whole."""
    value_BN = torch.nn.functional.pad(value_T, (0, blocks * BLOCK - len(value_T)))
    value_BN = value_BN.view(blocks, BLOCK)
    return value_BN.amin(1), value_BN.amax(1)


def _listed(read_QK: Tensor) -> tuple[Tensor, Tensor]:
    """As FlexAttention wants it: how many blocks each block of queries reads, and these, first."""
    order_QK = torch.argsort(read_QK.int(), dim=1, descending=True, stable=True)
    return read_QK.sum(1).int()[None, None], order_QK.int()[None, None]


def masks(
    config: PretrainedConfig,
    exit_T: Tensor,
    position_T: Tensor,
    parts: tuple[Part, ...],
    dtype: torch.dtype,
) -> Mask | dict[str, Mask]:
    """What the model takes as `attention_mask`: one mask, or one for each layer type."""
    made = {
        kind: _mask(config, exit_T, position_T, parts, dtype, window)
        for kind, window in windows(config).items()
    }
    return made.get("", made)


def _mask(
    config: PretrainedConfig,
    exit_T: Tensor,
    position_T: Tensor,
    parts: tuple[Part, ...],
    dtype: torch.dtype,
    window: int | None,
) -> Mask:
    attention = config._attn_implementation
    if attention == "flex_attention":
        return block_mask(exit_T, position_T, window)
    if attention == NAME:
        return _forest_mask(exit_T, position_T, parts, dtype, window)
    allowed = dense_mask(exit_T, position_T, window)
    return additive_mask(allowed, dtype) if attention == "eager" else allowed


def _forest_mask(
    exit_T: Tensor,
    position_T: Tensor,
    parts: tuple[Part, ...],
    dtype: torch.dtype,
    window: int | None,
) -> Tensor:
    """The blocks of a row for `forest_attention`, on what transformers takes for a mask."""
    blocks: list[Block] = []
    exits = exit_T.tolist()
    for start, end, chain in parts:
        # A chain within its window is plain causal attention, which needs no mask.
        if chain and (window is None or end - start <= window):
            blocks.append((end - start, (), None))
            continue
        tree, first = slice(start, end), len(blocks)
        chains = _chains(exits, start, end)
        if len(chains) == 1:
            seen = dense_mask(exit_T[tree] - start, position_T[tree], window)
            blocks.append((end - start, (), additive_mask(seen, dtype)))
            continue
        for a, b, above in chains:
            seen = _chain_mask([chains[n][:2] for n in above], (a, b), position_T, window)
            numbers = tuple(first + n for n in above)
            blocks.append((b - a, numbers, additive_mask(seen, dtype)))
    # On the mask itself: transformers hands its attention functions nothing else of ours. It lets no
    # token see anything, so that a model which loses our blocks on the way is seen to be wrong.
    nothing = torch.zeros(1, 1, 1, 1, dtype=torch.bool, device=exit_T.device)
    carrier = nothing.expand(1, 1, len(exits), len(exits))
    carrier.forest_blocks = tuple(blocks)  # type: ignore[attr-defined]
    return carrier


def _chain_mask(
    above: list[tuple[int, int]], own: tuple[int, int], position_T: Tensor, window: int | None
) -> Tensor:
    """Boolean mask (1, 1, Q, K) of a chain of Q nodes: the keys of the chains above it, then its own."""
    device = position_T.device
    key_K = torch.cat([torch.arange(a, b, device=device) for a, b in (*above, own)])
    query_Q = torch.arange(*own, device=device)
    # What stands before a node among its own and those above it is what it descends from.
    allowed = key_K[None, :] <= query_Q[:, None]
    if window is not None:
        allowed &= position_T[query_Q][:, None] - position_T[key_K][None, :] < window
    return allowed[None, None]


def _chains(exits: list[int], start: int, end: int) -> list[tuple[int, int, list[int]]]:
    """A tree as its chains (first node, one past the last, the chains above by number), or as one piece
    where that is less work: chains of a few tokens cost more in calls than their masks do."""
    bounds = [start, *(t for t in range(start + 1, end) if exits[t] != exits[t - 1]), end]
    chains: list[tuple[int, int, list[int]]] = []
    for a, b in pairwise(bounds):
        above = [n for n, (c, _, _) in enumerate(chains) if exits[c] > a]
        chains.append((a, b, above))
    work = sum(
        CALL + (b - a) * (b - a + sum(chains[n][1] - chains[n][0] for n in above))
        for a, b, above in chains
    )
    return chains if work < CALL + (end - start) ** 2 else [(start, end, [])]


def forest_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Scaled-dot-product attention, block by block. Shapes as transformers' attention functions."""
    forest = getattr(attention_mask, "forest_blocks", None)
    if forest is None or attention_mask is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    # Split, not sliced: the gradient of a slice is a whole row of zeros for every tree.
    queries, keys, values = (
        whole.split([size for size, _, _ in forest], dim=2) for whole in (query, key, value)
    )
    outs = []
    for number, (_, above, mask) in enumerate(forest):
        q, k, v = queries[number], keys[number], values[number]
        if above:
            k = torch.cat([*(keys[n] for n in above), k], dim=2)
            v = torch.cat([*(values[n] for n in above), v], dim=2)
        mask = None if mask is None else mask.to(q.dtype)
        outs.append(sdpa_attention_forward(module, q, k, v, mask, **kwargs)[0])
    return torch.cat(outs, dim=1), None


AttentionInterface.register(NAME, forest_attention)
# For calls without our 4-D mask (sampling, a path alone): then masks are made as for sdpa.
AttentionMaskInterface.register(NAME, sdpa_mask)
