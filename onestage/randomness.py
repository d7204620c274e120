"""Random numbers as a function of what they are for."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(key: str) -> np.random.Generator:
    """A generator that is a function of `key` alone: equal keys, equal numbers, on any machine."""
    digest = hashlib.blake2b(key.encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "big")))
