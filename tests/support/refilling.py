"""Deliberate faults in giving places of a batch on: what the trial of it must refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers.cache_utils import DynamicSlidingWindowLayer

from onestage.rollout.engines import _cache, _under_way

REPLACE, COLUMNS, LEAVE = _under_way.Rows.replace, _cache._replace_columns, _cache._leave


def one_place_on(rows: Any, place_N: Any, *given: Any) -> None:
    """A newcomer's next token stands one place farther from its prompt."""
    REPLACE(rows, place_N, *given)
    rows.position_R[place_N] += 1


def sees_its_forerunner(rows: Any, place_N: Any, *given: Any) -> None:
    """A newcomer sees the last token of who had its place before."""
    REPLACE(rows, place_N, *given)
    for place in place_N.tolist():
        rows.mask_RT[place, -int(rows.position_R[place]) - 1] = 1


def stale_slot(column: int) -> Callable[..., None]:
    """One of a newcomer's columns still holds its forerunner's key and value."""

    def replace(layer: Any, place_N: Any, *given: Any) -> None:
        kept = [x[place_N, :, column].clone() for x in (layer.keys, layer.values)]
        COLUMNS(layer, place_N, *given)
        for x, old in zip((layer.keys, layer.values), kept, strict=True):
            x[place_N, :, column] = old

    return replace


def one_column_left(layer: Any, place_N: Any, source: Any, row_N: Any) -> None:
    """A newcomer's columns begin one too early."""
    COLUMNS(layer, place_N, source, row_N)
    for x in (layer.keys, layer.values):
        x[place_N] = torch.roll(x[place_N], -1, dims=2)


def forgets_what_it_left(layer: Any, columns: int) -> None:
    """A window counts columns that were left behind."""
    before = getattr(layer, "cumulative_length", None)
    LEAVE(layer, columns)
    if before is not None:
        layer.cumulative_length = before


def one_column_off(layer: Any, columns: int) -> None:
    """A window is taken for one column farther left than it is."""
    LEAVE(layer, columns)
    if isinstance(layer, DynamicSlidingWindowLayer):
        layer.cumulative_length -= 1


EVERYWHERE = {
    "one place on": (_under_way.Rows, "replace", one_place_on),
    "sees its forerunner": (_under_way.Rows, "replace", sees_its_forerunner),
    "its last slot is stale": (_cache, "_replace_columns", stale_slot(-1)),
    "its last slot but two is stale": (_cache, "_replace_columns", stale_slot(-3)),
    "one column left": (_cache, "_replace_columns", one_column_left),
}
OF_WINDOWS = {
    "forgets what it left": (_cache, "_leave", forgets_what_it_left),
    "a window one column off": (_cache, "_leave", one_column_off),
}
