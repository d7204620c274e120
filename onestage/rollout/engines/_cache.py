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

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import (
    DummyLayer,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
    LinearAttentionCacheLayerMixin,
    LinearAttentionLayer,
)

ROOM = 64
"""Tokens for which a layer's cache makes room at a time."""


class RoomyLayer(DynamicLayer):
    """A layer's keys and values (R, heads, T, size), a part of memory that has room for more."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        at, more = self.get_seq_length(), key_states.shape[-2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.first = self.room = 0
        if self.first + at + more > self.room:
            self.first, self.room = 0, at + more + ROOM
            self._keys, self._values = (
                _with_room(old, new, at, self.room)
                for old, new in ((self.keys, key_states), (self.values, value_states))
            )
        end = self.first + at
        self._keys[:, :, end : end + more] = key_states
        self._values[:, :, end : end + more] = value_states
        return self._show(end + more)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        if at := self.get_seq_length():
            self._keys, self._values = self._keys[beam_idx], self._values[beam_idx]
            self._show(self.first + at)

    def leave(self, columns: int) -> None:
        """Leave columns on the left behind; they are overwritten when room is made anew."""
        end = self.first + self.get_seq_length()
        self.first += columns
        self._show(end)

    def _show(self, end: int) -> tuple[Tensor, Tensor]:
        keys, values = (x[:, :, self.first : end] for x in (self._keys, self._values))
        self.keys, self.values = keys, values
        return keys, values


def _with_room(old: Tensor | None, new: Tensor, at: int, room: int) -> Tensor:
    made = new.new_empty(*new.shape[:2], room, new.shape[-1])
    if at and old is not None:
        made[:, :, :at] = old
    return made


REPLACEABLE = {
    RoomyLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
    DummyLayer,
}
"""Layers of which is known all that they keep of a row."""


def roomy_cache(config: Any) -> DynamicCache:
    """transformers' cache of a model, with room in the layers that keep everything."""
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer() if type(x) is DynamicLayer else x for x in cache.layers]
    return cache


def fixed_layers(cache: Any) -> list[str]:
    """The sorts of layers whose rows cannot be replaced."""
    return sorted({type(x).__name__ for x in cache.layers if type(x) not in REPLACEABLE})


def replace_rows(cache: Any, place_N: Tensor, other: Any, row_N: Tensor, leave: int) -> None:
    """Rows of another cache, which is no wider, in the places of ours; then as many columns on the left
    as no row needs any more are left behind."""
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
        for number, state in ours.items():
            if state is not None:
                state[place_N] = theirs[number][row_N]


def _replace_columns(layer: Any, place_N: Tensor, source: Any, row_N: Tensor) -> None:
    # A window's layer keeps the last columns only: then the newcomer has as many, or fewer.
    first = layer.keys.shape[-2] - source.keys.shape[-2]
    layer.keys[place_N, :, first:] = source.keys[row_N]
    layer.values[place_N, :, first:] = source.values[row_N]


def _leave(layer: Any, columns: int) -> None:
    if isinstance(layer, RoomyLayer):
        layer.leave(columns)
        return
    first, shown = columns, layer.keys.shape[-2]
    if isinstance(layer, DynamicSlidingWindowLayer):
        layer.cumulative_length -= columns
        first = max(shown - layer.cumulative_length, 0)
    layer.keys, layer.values = layer.keys[:, :, first:], layer.values[:, :, first:]
