"""Bases of 4 bits, by bitsandbytes: how they are made, and what keeps them fit for training.

On a CPU with AVX512-BF16 a layer of bitsandbytes (0.50.2) packs its weights anew the first time it is
asked without gradients, for a product that has no backward pass through what it reads, and leaves them
so. After a first evaluation all adapters but those of the last layers then had gradients of 0, and
nothing said so. A layer that is told that it has no such CPU takes its weights apart each time, and
packs none.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

PACKS = "support_avx512bf16_for_cpu"
"""Of a layer of bitsandbytes: whether it may pack its weights."""


def settings() -> Any:
    """What transformers is told. Raises `ValueError` where bitsandbytes is not installed."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError(
            "model.load_in_4bit needs the package bitsandbytes: pip install 'onestage[quantized]'"
        )
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def trainable(model: Any) -> Any:
    """The model, whose layers pack nothing."""
    for module in model.modules():
        if hasattr(module, PACKS):
            setattr(module, PACKS, False)
    return model
