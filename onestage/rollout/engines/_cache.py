"""A cache of keys and values whose rows are given to other completions while the others go on.

Rows end at the right: at any time the last column is the last token of every row, whatever its length,
and a mask hides what stands before its first. So one that has ended is replaced by writing the
newcomer's prompt into its last columns, and columns that no row reaches back to are left behind.
Distances between columns are those between tokens, which is all that a sliding window asks for. States
of recurrent and convolutional layers have no columns, and are replaced whole.

New keys and values are written into room kept for them: transformers' own dynamic cache copies
everything at every token, which takes most of the time that it takes to sample on a CPU.

Legend: R rows, T columns.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, cache_utils
from transformers.cache_utils import (
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionCacheLayerMixin,
)

ROOM = 64
"""Tokens for which a layer's cache makes room at a time."""


class _Room:
    """Memory for keys and values (R, heads, T, size): the columns that count, and room behind them."""

    def __init__(self) -> None:
        self.both: list[Tensor] = []
        self.first = self.end = 0

    def append(self, key: Tensor, value: Tensor) -> None:
        more, kept = key.shape[-2], self.end - self.first
        if not self.both or self.end + more > self.both[0].shape[-2]:
            old = self.shown if self.both else (key[:, :, :0], value[:, :, :0])
            self.both = [
                torch.cat([x, new.new_empty(*new.shape[:2], more + ROOM, new.shape[-1])], dim=2)
                for x, new in zip(old, (key, value), strict=True)
            ]
            self.first, self.end = 0, kept
        for x, new in zip(self.both, (key, value), strict=True):
            x[:, :, self.end : self.end + more] = new
        self.end += more

    def keep(self, columns: int) -> None:
        """Leave all but the last behind; they are overwritten when room is made anew."""
        self.first = max(self.first, self.end - columns)

    def select(self, row_R: Tensor) -> None:
        self.both = [x[row_R] for x in self.both]

    @property
    def shown(self) -> tuple[Tensor, Tensor]:
        keys, values = (x[:, :, self.first : self.end] for x in self.both)
        return keys, values


class _Roomy(DynamicLayer):
    """What the layers below have in common, whatever of transformers they are."""

    room: _Room

    def reorder_cache(self, beam_idx: Tensor) -> None:
        if self.get_seq_length():
            self.room.select(beam_idx)
            self.keys, self.values = self.room.shown


class RoomyLayer(_Roomy):
    """A layer that keeps everything, with room for more."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.room = _Room()
        self.room.append(key_states, value_states)
        self.keys, self.values = shown = self.room.shown
        return shown

    def leave(self, columns: int) -> None:
        """Leave columns on the left behind."""
        self.room.keep(self.get_seq_length() - columns)
        self.keys, self.values = self.room.shown


class RoomySlidingLayer(_Roomy, DynamicSlidingWindowLayer):
    """A layer that keeps a window, with room for more."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.room = _Room()
        self.cumulative_length += key_states.shape[-2]
        self.room.append(key_states, value_states)
        shown = self.room.shown
        self.room.keep(self.sliding_window - 1)
        self.keys, self.values = self.room.shown
        return shown

    def leave(self, columns: int) -> None:
        """Leave columns on the left of the text behind, whether or not the window still has them."""
        self.cumulative_length -= columns
        self.room.keep(self.cumulative_length)
        self.keys, self.values = self.room.shown


THEIRS = (
    "LinearAttentionLayer",
    "LinearAttentionAndFullAttentionLayer",
    "LinearAttentionAndSlidingWindowAttentionLayer",
    "DummyLayer",  # keeps nothing
)
"""Of transformers, whichever of them its version has: 5.10 has two, 5.19 three."""
REPLACEABLE = {
    RoomyLayer,
    RoomySlidingLayer,
    *(getattr(cache_utils, name) for name in THEIRS if hasattr(cache_utils, name)),
}
"""Layers of which is known all that they keep of a row."""


def roomy_cache(config: Any) -> DynamicCache:
    """transformers' cache of a model, with room in the layers of plain attention."""
    cache = DynamicCache(config=config)
    cache.layers = [_roomy(layer) for layer in cache.layers]
    return cache


def _roomy(layer: Any) -> Any:
    if type(layer) is DynamicLayer:
        return RoomyLayer()
    if type(layer) is DynamicSlidingWindowLayer:
        return RoomySlidingLayer(sliding_window=layer.sliding_window)
    return layer


def fixed_layers(cache: Any) -> list[str]:
    """The sorts of layers whose rows cannot be replaced."""
    return sorted({type(x).__name__ for x in cache.layers if type(x) not in REPLACEABLE})


def replace_rows(cache: Any, place_N: Tensor, other: Any, row_N: Tensor, leave: int) -> None:
    """Rows of another cache, whose texts are no longer than ours is wide, in the places of ours; then as
    many columns on the left as no row needs any more are left behind."""
    for layer, source in zip(cache.layers, other.layers, strict=True):
        if isinstance(layer, LinearAttentionCacheLayerMixin):
            _replace_states(layer, place_N, source, row_N)
        if isinstance(layer, DynamicLayer) and layer.get_seq_length():
            _replace_columns(layer, place_N, source, row_N)
            _leave(layer, leave)


def _replace_states(layer: Any, place_N: Tensor, source: Any, row_N: Tensor) -> None:
    pairs = (
        (layer.conv_states, source.conv_states),
        (layer.recurrent_states, source.recurrent_states),
    )
    for ours, theirs in pairs:
        if isinstance(ours, Tensor):  # before transformers 5.19 there is one of each
            ours[place_N] = theirs[row_N]
            continue
        for number, state in (ours or {}).items():
            if state is not None:
                state[place_N] = theirs[number][row_N]


def _replace_columns(layer: Any, place_N: Tensor, source: Any, row_N: Tensor) -> None:
    # The columns that both have: a window's layer keeps the last ones only, and what is more in the
    # other cache is padding.
    both = min(layer.keys.shape[-2], source.keys.shape[-2])
    layer.keys[place_N, :, -both:] = source.keys[row_N, :, -both:]
    layer.values[place_N, :, -both:] = source.values[row_N, :, -both:]


def _leave(layer: Any, columns: int) -> None:
    if isinstance(layer, RoomyLayer | RoomySlidingLayer):
        layer.leave(columns)
        return
    first, shown = columns, layer.keys.shape[-2]
    if isinstance(layer, DynamicSlidingWindowLayer):
        layer.cumulative_length -= columns
        first = max(shown - layer.cumulative_length, 0)
    layer.keys, layer.values = layer.keys[:, :, first:], layer.values[:, :, first:]
