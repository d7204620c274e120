"""Columns of numbers on disk, written in pieces and read where they lie.

A store has some fifteen numbers for each of its records: little beside a thousand of them, and more than
a machine's memory beside a billion, on a node even once for each of its ranks. So what is written leaves
the memory every few thousand records, what is long is mapped (the system keeps of it what it has room
for, once for all processes), and where a record's part of another column begins is kept of every 64th,
the rest being a short sum.
"""

from __future__ import annotations

import os
import resource
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

Numbers = np.ndarray[Any, np.dtype[Any]]

HELD = 4096
"""Records whose numbers are in memory at once while a store is written."""
MAPPED = 8 << 20
"""Bytes from which on a column is mapped."""
STRIDE = 64
"""Of so many records, one has its starts in memory."""
PIECE = 1 << 20
"""Records that are gone through at once."""


def spill(columns: Mapping[str, array[Any]], files: Mapping[str, BinaryIO]) -> None:
    """Write the numbers that were gathered behind those in the files, and forget them."""
    for name, values in columns.items():
        values.tofile(files[name])
        del values[:]


def column(file: Path, dtype: str | type[Any], mapped: int = MAPPED) -> Numbers:
    """The numbers of a file: read whole, or from so many bytes on mapped, for reading only."""
    kind, size = np.dtype(dtype), file.stat().st_size
    if size < max(mapped, 1) or (mapped and _crowded()):  # nothing cannot be mapped
        return np.fromfile(file, dtype=kind)
    return np.memmap(file, dtype=kind, mode="r").view(np.ndarray)


def _crowded() -> bool:
    """Whether half of the files that this process may have open are: each mapping holds one, and a run
    may have hundreds of streams."""
    try:
        return 2 * len(os.listdir("/dev/fd")) > resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    except OSError:
        return False


def number_type(size: int) -> type[np.unsignedinteger[Any]]:
    """The smallest type that numbers below a size are kept in here."""
    return np.uint32 if size <= 1 << 32 else np.uint64


def pieces(size: int) -> Iterator[tuple[int, int]]:
    """(begin, end) of so many records, some at a time."""
    for begin in range(0, size, PIECE):
        yield begin, min(size, begin + PIECE)


class Starts:
    """Where each record's part of another column lies, by how many numbers each has there."""

    def __init__(self, counts: Numbers) -> None:
        self.counts = counts
        edges = np.arange(0, len(counts), STRIDE)
        sums = np.add.reduceat(counts, edges, dtype=np.int64) if len(edges) else edges
        self._starts = np.concatenate([[0], np.cumsum(sums)])

    def before(self, number: int) -> int:
        """How many numbers stand before those of a record; of one past the last, all of them."""
        block = number // STRIDE
        return int(self._starts[block]) + int(self.counts[block * STRIDE : number].sum())

    def __getitem__(self, number: int) -> slice:
        begin = self.before(number)
        return slice(begin, begin + int(self.counts[number]))
