"""Random numbers as a function of what they are for."""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np


def generator(key: str) -> np.random.Generator:
    """A generator that is a function of `key` alone: equal keys, equal numbers, on any machine."""
    digest = hashlib.blake2b(key.encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "big")))


def seed_torch(seed: int) -> None:
    """As `torch.manual_seed`, which keeps the whole call stack for each kind of device, to seed it when
    it is first used: milliseconds in every step of a run on a machine that has none of them."""
    import torch

    if _has_device():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


@cache
def _has_device() -> bool:
    import torch

    return torch.accelerator.is_available()
