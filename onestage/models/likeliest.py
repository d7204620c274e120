"""What a model would have said itself, greedily: for benchmarks that ask whether it is a given token,
and for objectives that let it read its own guesses."""

from __future__ import annotations

import torch
from torch import Tensor

ELEMENTS = 1 << 24
"""Logits that exist at once."""


@torch.no_grad()
def likeliest(hidden_KH: Tensor, weight_VH: Tensor, bias_V: Tensor | None = None) -> Tensor:
    """The tokens (K) with the largest logits under a linear head.

    What models do to logits behind the head (a scale, a soft cap) keeps their order.
    """
    found = [hidden_KH.new_empty(0, dtype=torch.int64)]
    for hidden_kH in hidden_KH.split(max(1, ELEMENTS // len(weight_VH))):
        logits_kV = torch.nn.functional.linear(hidden_kH.to(weight_VH.dtype), weight_VH, bias_V)
        found.append(logits_kV.argmax(-1))
    return torch.cat(found)
