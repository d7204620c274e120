"""Three ways to tell whether weights are the same: in memory, on disk, and since a moment ago."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import torch

BLOCK = 1 << 24
"""Bytes of a file that are read at once."""
BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def digest(model: torch.nn.Module) -> str:
    """A digest of every parameter and buffer: names, shapes, types and bytes.

    It names the caches of what a model says, and a checkpoint's start: the same on every machine.
    """
    found = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        if not isinstance(tensor, torch.Tensor):
            continue
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        raw = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        found.update(raw.numpy().data)
    return found.hexdigest()


def digest_files(files: Iterable[Path]) -> str:
    """A digest of some files of a model folder, by their names and bytes."""
    found = hashlib.blake2b(digest_size=16)
    for file in sorted(files):
        found.update(file.name.encode())
        with file.open("rb") as opened:
            while block := opened.read(BLOCK):
                found.update(block)
    return found.hexdigest()


def bit_sums(model: torch.nn.Module) -> tuple[int, ...]:
    """Sums of the bits of all weights: other numbers after any update.

    For the question that is asked before each sampling, whether an engine's copy is out of date: a
    digest would bring every weight to the CPU, this reads them where they are.
    """
    sums = [
        p.detach().contiguous().view(BITS[p.element_size()]).sum(dtype=torch.int64)
        for p in model.parameters()
    ]
    return tuple(torch.stack([total.cpu() for total in sums]).tolist())
