"""Other libraries' fused heads behind the function of ours (`head.token_logps`).

Both make logits in chunks and their gradients in the backward pass, once it is known by which number
each token's is multiplied (Liger with `reduction="none"`: one that made them in the forward pass could
not know). Neither is asked for entropies: where these are read, the head is ours. Which of them is used,
`head_choice` decides, by trying them where the run is.

Legend: K scored positions, H hidden size, V vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from onestage.models.head import Shape, as_computed, token_logps
from onestage.runfolder import version_of

OURS = "onestage"
Logps = Callable[[Tensor, Tensor, Tensor | None, Tensor, Shape], Tensor]
"""From hidden states (K, H), weight (V, H), bias (V), targets (K): log-probabilities (K, float32)."""
PLAIN = Shape()
TILE = 1 << 15
"""Vocabulary of a tile of TRL's, its own trainers' number."""


@dataclass(frozen=True)
class Way:
    """A library's head, and what it is not made for."""

    package: str
    """Its name at the package registry."""
    load: Callable[[], Logps]
    scales: bool
    """Whether logits can be scaled."""
    on_cpu: bool
    """Whether it runs without Triton."""


def _ligers() -> Logps:
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    def logps(
        hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, shape: Shape
    ) -> Tensor:
        nll: Tensor = liger_fused_linear_cross_entropy(
            *(hidden, weight, target, bias),
            reduction="none",
            softcap=shape.softcap,
            accum_dtype=torch.float32,  # of the weight's gradient over chunks
        )
        return -nll

    return logps


def _trls() -> Logps:
    from trl.kernels.chunked_logprob import ChunkedLogProbFunction

    def logps(
        hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, shape: Shape
    ) -> Tensor:
        tile = min(TILE, len(weight))
        how = (1.0, tile, shape.softcap, shape.scale, ())  # temperature 1, nothing read beside
        found: Tensor = ChunkedLogProbFunction.apply(hidden, weight, bias, target, *how)[0]
        return found

    return logps


WAYS = {
    "liger": Way("liger-kernel", _ligers, scales=False, on_cpu=False),
    "trl": Way("trl", _trls, scales=True, on_cpu=True),
}


def installed(name: str) -> str:
    """The version of a way's library; nothing where there is none."""
    return version_of(WAYS[name].package)


def cannot(name: str, device: str, shape: Shape = PLAIN, dtype: torch.dtype | None = None) -> str:
    """Why a way cannot be such a head's on such a device, in words; nothing where it can be tried.

    device: its type, `cpu` or `cuda`; dtype: of the head's weight.
    """
    if name == OURS:
        return ""
    way = WAYS[name]
    if not installed(name):
        return f"{way.package} is not installed here (pip install {way.package})"
    if device == "cpu" and not way.on_cpu:
        return "it runs on GPUs only"
    if shape.scale != 1.0 and not way.scales:
        return f"it does not scale logits, and this model does (by {shape.scale:g})"
    if dtype == torch.float64:
        return "it computes in float32, and this model is in float64"
    return ""


def logps_by(
    name: str,
    hidden_KH: Tensor,
    weight_VH: Tensor,
    target_K: Tensor,
    *,
    bias_V: Tensor | None = None,
    shape: Shape = PLAIN,
    chunk: int | None = None,
) -> Tensor:
    """As `head.token_logps`, by a way of this name. `chunk`: of ours alone."""
    if name == OURS or not len(target_K):
        return token_logps(hidden_KH, weight_VH, target_K, bias_V=bias_V, shape=shape, chunk=chunk)
    hidden_KH, weight_VH = as_computed(hidden_KH, weight_VH)
    # All is cast: what autocast would do more, ours does not.
    with torch.autocast(hidden_KH.device.type, enabled=False):
        return _loaded(name)(hidden_KH, weight_VH, bias_V, target_K, shape)


@functools.cache
def _loaded(name: str) -> Logps:
    return WAYS[name].load()
