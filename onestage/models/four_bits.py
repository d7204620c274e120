"""Bases of 4 bits, by bitsandbytes: how they are made, and what keeps them fit for training.

On a CPU with AVX512-BF16 a layer of bitsandbytes (0.50.2) packs its weights anew the first time it is
asked without gradients, for a product that has no backward pass through what it reads, and leaves them
so. After a first evaluation all adapters but those of the last layers then had gradients of 0, and
nothing said so. A layer that is told that it has no such CPU takes its weights apart each time, and
packs none.

A packed weight keeps what unpacks it (scales of blocks of 64, a thirtieth of its own size) as an
attribute, which torch loses where it cuts weights into parts; bitsandbytes then looks on the layer.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import nn

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


def cuttable(model: nn.Module) -> None:
    """Lay the packed weights of a model out so that they can lie in parts like others: as numbers of a
    floating type, which torch asks for, with the same bytes. What unpacks them stays whole, with their
    layers. Raises `ValueError` for one whose bytes are no whole numbers of that type."""
    for name, module in model.named_modules():
        packed = module._parameters.get("weight")  # its own: PEFT's layers show that of another
        state = getattr(packed, "quant_state", None)
        if packed is None or state is None:
            continue
        held: Any = module
        held.quant_state, found = state, packed.detach().view(-1)
        if not found.is_floating_point():
            if found.numel() % 2:
                raise ValueError(
                    f"{name}: an odd number of bytes ({found.numel():,}) of 4-bit weights cannot lie in "
                    "parts; set distributed.sharding: none"
                )
            found = found.view(torch.bfloat16)
        held.quant_storage = found.dtype
        held.weight = nn.Parameter(found.view(-1, 1), requires_grad=False)


def packed(model: nn.Module) -> set[int]:
    """The identities of weights that hold bytes, whatever numbers these would be."""
    layers = (m for m in model.modules() if getattr(m, "quant_state", None) is not None)
    return {id(layer._parameters.get("weight")) for layer in layers}
