"""What ranks tell each other: arrays of numbers, as tensors, in blocks of bounded size.

Not objects: those are pickled, which takes as much again in memory, and which nothing says the size of.
Every array travels as its bytes, so that each comes back with its type, to the last bit, over gloo and
NCCL alike. No disk is shared, and nothing is asked of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, distributed

Array = np.ndarray[Any, np.dtype[Any]]
Bytes = np.ndarray[Any, np.dtype[np.uint8]]
TYPES = tuple(map(np.dtype, (np.uint8, np.int32, np.int64, np.uint64, np.float32, np.float64)))
BLOCK = 1 << 24
"""Bytes that each rank sends at once; what a device holds of them is that times the ranks."""


@dataclass(frozen=True)
class Ranks:
    """Which process this is, of how many that do one work."""

    rank: int = 0
    ranks: int = 1
    device: torch.device | str = "cpu"
    """Through whose memory is sent: NCCL knows no other than a card's."""
    first_of_node: bool = True
    """Whether it is the one of its machine that writes what the others of it read."""

    @staticmethod
    def of(accelerator: Accelerator) -> Ranks:
        return Ranks(
            accelerator.process_index,
            accelerator.num_processes,
            accelerator.device,
            accelerator.is_local_main_process,
        )

    def gather(self, arrays: Sequence[Array]) -> list[list[Array]]:
        """Some flat arrays of each rank, of any number and lengths, on all ranks, in the order of ranks.

        All ranks must call it. Raises ValueError for a type that is not in `TYPES`.
        """
        if self.ranks == 1:
            return [list(arrays)]
        header = [(TYPES.index(array.dtype), len(array)) for array in arrays]
        headers = self._gather(_bytes(np.asarray(header, np.int64).reshape(-1)))
        contents = self._gather(np.concatenate([np.empty(0, np.uint8), *map(_bytes, arrays)]))
        return [
            list(_cut(content, header.view(np.int64).reshape(-1, 2)))
            for header, content in zip(headers, contents, strict=True)
        ]

    def _gather(self, mine: Bytes) -> list[Bytes]:
        sizes = self._sent(torch.tensor([len(mine)], dtype=torch.int64, device=self.device))
        found = [np.empty(int(size), np.uint8) for size in sizes]
        longest = max(map(len, found))
        for start in range(0, longest, BLOCK):
            place = slice(start, min(start + BLOCK, longest))
            block = np.zeros(place.stop - start, np.uint8)
            block[: len(mine[place])] = mine[place]
            for whole, part in zip(
                found, self._sent(torch.from_numpy(block).to(self.device)), strict=True
            ):
                whole[place] = part.cpu().numpy()[: len(whole[place])]
        return found

    def _sent(self, mine: Tensor) -> list[Tensor]:
        """Of every rank a tensor of one shape."""
        found = [torch.empty_like(mine) for _ in range(self.ranks)]
        distributed.all_gather(found, mine)
        return found


ALONE = Ranks()


def _bytes(array: Array) -> Bytes:
    return np.ascontiguousarray(array).view(np.uint8)


def _cut(content: Bytes, header: Array) -> Iterator[Array]:
    start = 0
    for number, length in header.tolist():
        stop = start + length * TYPES[number].itemsize
        # A copy: what is kept of it would else keep all of it, and lie across words of memory.
        yield content[start:stop].copy().view(TYPES[number])
        start = stop
