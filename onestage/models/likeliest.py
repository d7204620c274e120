"""Whether a model would have said a token itself, greedily: for benchmarks that ask just that."""

from __future__ import annotations

import torch
from torch import Tensor

ELEMENTS = 1 << 24
"""Logits that exist at once."""


@torch.no_grad()
def is_likeliest(
    hidden_KH: Tensor, weight_VH: Tensor, target_K: Tensor, bias_V: Tensor | None = None
) -> Tensor:
    """1 or 0 (K, float32): whether `target_K` has the largest logit under a linear head.

    What models do to logits behind the head (a scale, a soft cap) keeps their order.
    """
    found = []
    for hidden_kH, target_k in zip(
        hidden_KH.split(chunk := max(1, ELEMENTS // len(weight_VH))),
        target_K.split(chunk),
        strict=True,
    ):
        logits_kV = torch.nn.functional.linear(hidden_kH.to(weight_VH.dtype), weight_VH, bias_V)
        found.append(logits_kV.argmax(-1) == target_k)
    return torch.cat(found).float() if found else target_K.float()
