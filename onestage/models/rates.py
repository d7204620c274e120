"""How fast this machine multiplies matrices, by precision.

A processor without instructions for bfloat16 or float16 takes tens of times as long in them as in
float32 (AVX2 alone, torch 2.13: 1 GFLOP/s against 56), and most published models are kept in bfloat16.
"""

from __future__ import annotations

import functools
import time

import torch

SLOW = 4.0
"""Times as long as in float32 from which on it is told."""
ROWS, FEW = 1024, 192
"""Of the square matrices that are tried; few in half precisions on a CPU, which may take that long."""


@functools.cache
def matmul_rate(dtype: torch.dtype = torch.float32) -> float:
    """Floating-point operations a second of a square matrix product on the device that would train,
    the best of four."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = FEW if device == "cpu" and dtype.itemsize < 4 else ROWS
    left = torch.randn(size, size, device=device).to(dtype)
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        (left @ left).sum().item()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def slow_precision(dtype: torch.dtype, device: str) -> str:
    """What is to be said of computing in `dtype` on this processor; nothing where it is not slow."""
    if device != "cpu" or dtype.itemsize >= 4 or torch.cuda.is_available():
        return ""
    slower = matmul_rate() / matmul_rate(dtype)
    if slower < SLOW:
        return ""
    name = str(dtype).removeprefix("torch.")
    return (
        f"this processor has no fast {name}: products in it take {slower:.0f} times as long as in "
        "float32; in float32 the model takes twice the memory and far less time"
    )
