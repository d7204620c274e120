"""A matrix product on the CPU in float32 by oneDNN, where torch has it: on a core of an AMD EPYC (Zen 4)
it does 101 to 106 GFLOP/s on layers of SmolLM2 and 99 on its head; MKL, torch's choice, 90 to 96 and 72.

Small products stay with torch's own: there is nothing to win. Which of the two is taken depends on the
shapes alone, so a run that is resumed computes the same. In half precision torch takes oneDNN itself.

Legend: N rows, I summed over, O columns.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST = 1 << 22
"""Multiply-adds of a product that is worth it."""


def _onednn() -> Any:
    """What torch's compiler calls for a linear layer; None where this build has none."""
    if not torch.backends.mkldnn.is_available():
        return None
    try:
        return torch.ops.mkldnn._linear_pointwise.default
    except AttributeError:
        return None


ONEDNN = _onednn()


def product(left_NI: Tensor, right_OI: Tensor) -> Tensor:
    """left right^T (N, O). No gradient goes through it."""
    large = left_NI.shape[0] * right_OI.numel() >= LEAST
    if ONEDNN is None or not large or left_NI.dtype != torch.float32 or not left_NI.is_cpu:
        return torch.mm(left_NI, right_OI.t())
    found: Tensor = ONEDNN(left_NI, right_OI, None, "none", [], "")
    return found


def linear(left_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """What a linear layer says (N, O). In half precision product and bias are rounded once, together, as
    the layer itself does it. No gradient goes through it."""
    if bias_O is not None and left_NI.dtype != torch.float32:
        return F.linear(left_NI, weight_OI, bias_O)
    said_NO = product(left_NI, weight_OI)
    return said_NO if bias_O is None else said_NO.add_(bias_O)
