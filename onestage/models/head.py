"""From hidden states to log-probabilities without ever holding full logits.

    logp_K = log softmax(cap(scale * (h_K W^T + b)))[target_K]

and, where it is asked for, the entropy of the same distribution, H_K = - sum_v p_v log p_v.

Logits are made in chunks of positions and never kept, so memory is one chunk whatever the vocabulary.
Values and gradients equal the naive computation (law 3). The gradient by a hidden state is

    d logp_k / d h_k = scale * sum_v cap'(z_kv) (1[v = target_k] - p_kv) W_v

which the backward pass only multiplies by a number for each position. So under a head that is not
trained (adapters) it is made together with the log-probability, from the same logits. Where the head
is trained, or entropies are asked for, the backward pass makes the logits again.

Legend: K scored positions, H hidden size, V vocabulary.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from onestage.models.products import product

CHUNK_ELEMENTS = {"cpu": 1 << 22, "cuda": 1 << 27}
"""Logits in a chunk: 16 MiB of float32 on the CPU (it stays near the caches), 256 MiB of half precision
on a GPU."""
FEWEST = 128
"""Positions in a chunk at least: with fewer, each of them pays for a pass over the head's weight. Chunks
are multiples of it, too, as the tiles are in which GPUs multiply."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a model does to its logits after the linear head."""

    scale: float = 1.0
    """Logits are multiplied by this (Cohere's `logit_scale`, one over Granite's `logits_scaling`)."""
    softcap: float | None = None
    """Gemma 2's soft cap c: logits become c * tanh(logits / c)."""


def shape_of(config: Any) -> Shape:
    """What the model does to its logits, from the names transformers uses."""
    scale = getattr(config, "logit_scale", None)
    if scale is None:
        divisor = getattr(config, "logits_scaling", None)
        scale = 1.0 / divisor if divisor else 1.0
    return Shape(float(scale), getattr(config, "final_logit_softcapping", None))


def full_logits(
    hidden_KH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, shape: Shape
) -> Tensor:
    """All logits (K, V, float32) at once: what is never made in training."""
    product_KV = torch.nn.functional.linear(hidden_KH.to(weight_VH.dtype), weight_VH, bias_V)
    return shaped(product_KV.float(), shape)


def shaped(logits: Tensor, shape: Shape) -> Tensor:
    """What the model makes of the head's product."""
    if shape.scale != 1.0:
        logits = logits * shape.scale
    if shape.softcap is not None:
        logits = torch.tanh(logits / shape.softcap) * shape.softcap
    return logits


def token_logps(
    hidden_KH: Tensor,
    weight_VH: Tensor,
    target_K: Tensor,
    *,
    bias_V: Tensor | None = None,
    shape: Shape = Shape(),
    chunk: int | None = None,
) -> Tensor:
    """Log-probabilities (K, float32) of `target_K` under a linear head; differentiable in h, W, b.

    The products run in the head's own precision (autocast's where that is on), sums over the
    vocabulary in float32. `chunk` is the number of positions whose logits exist at once (default: from
    `CHUNK_ELEMENTS`).
    """
    return _apply(hidden_KH, weight_VH, bias_V, target_K, shape, chunk, False)[0]


def token_logps_and_entropy(
    hidden_KH: Tensor,
    weight_VH: Tensor,
    target_K: Tensor,
    *,
    bias_V: Tensor | None = None,
    shape: Shape = Shape(),
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """As `token_logps`, and the entropy (K, nats, float32) of each distribution, differentiable too."""
    return _apply(hidden_KH, weight_VH, bias_V, target_K, shape, chunk, True)


def _apply(
    hidden_KH: Tensor,
    weight_VH: Tensor,
    bias_V: Tensor | None,
    target_K: Tensor,
    shape: Shape,
    chunk: int | None,
    entropy: bool,
) -> tuple[Tensor, Tensor]:
    hidden_KH, weight_VH = as_computed(hidden_KH, weight_VH)
    device = hidden_KH.device.type
    if chunk is None:
        elements = CHUNK_ELEMENTS.get(device, CHUNK_ELEMENTS["cuda"])
        chunk = max(FEWEST, elements // weight_VH.shape[0] // FEWEST * FEWEST)
    given = (hidden_KH, weight_VH, bias_V, target_K, shape, chunk)
    if not entropy and _trained(hidden_KH) and not (_trained(weight_VH) or _trained(bias_V)):
        logp_K: Tensor = _LogpsOfFrozen.apply(*given)
        return logp_K, logp_K.new_empty(0)
    found: tuple[Tensor, Tensor] = _ChunkedLogps.apply(*given, entropy)
    return found


def as_computed(hidden_KH: Tensor, weight_VH: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the precision of their product: autocast's where that is on, else the weight's."""
    device, dtype = hidden_KH.device.type, weight_VH.dtype
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    return hidden_KH.to(dtype), weight_VH.to(dtype)


def _trained(tensor: Tensor | None) -> bool:
    """Whether a gradient by it will be asked for."""
    return tensor is not None and tensor.requires_grad and torch.is_grad_enabled()


def _shaped(logits: Tensor, bias: Tensor | None, shape: Shape) -> Tensor:
    """What the model makes of the product; in place where it is float32 already."""
    # Float32 from here on: half precision leaves a log-probability two or three digits, and losses are
    # about small differences between two of them.
    logits = logits.float()
    if bias is not None:
        logits += bias
    if shape.scale != 1.0:
        logits *= shape.scale
    if shape.softcap is not None:
        logits.div_(shape.softcap).tanh_().mul_(shape.softcap)
    return logits


def _read(
    logits: Tensor, bias: Tensor | None, target: Tensor, shape: Shape, entropy: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Of a chunk (k each): log-probabilities of the targets, log-sums, and entropies if wanted."""
    logits = _shaped(logits, bias, shape)
    norm = torch.logsumexp(logits, dim=-1)
    logp = logits.gather(1, target[:, None])[:, 0] - norm
    if not entropy:
        return logp, norm, None
    logits.sub_(norm[:, None])
    return logp, norm, -(logits.exp() * logits).sum(-1)


def _read_and_pulled(
    logits: Tensor, bias: Tensor | None, target: Tensor, shape: Shape, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Of a chunk: log-probabilities (k) as `_read` has them, to the bit, and their gradient (k, V) by
    the product, rounded last."""
    logits = _shaped(logits, bias, shape)
    slope = _slope(logits, shape)
    of_target, most = logits.gather(1, target[:, None])[:, 0], logits.amax(-1)
    # What `logsumexp` does, in place; its numerators are those of the softmax.
    pulled = logits.sub_(most[:, None]).exp_()
    total = pulled.sum(-1)
    logp = of_target - (total.log() + most)
    pulled.mul_(-total.reciprocal()[:, None])
    pulled.scatter_add_(1, target[:, None], torch.ones_like(pulled[:, :1]))
    return logp, _through(pulled, slope, shape).to(dtype)


def _pulled(
    logits: Tensor,
    bias: Tensor | None,
    target: Tensor,
    norm: Tensor,
    grad: Tensor,
    entropy: Tensor | None,
    entropy_grad: Tensor,
    shape: Shape,
    dtype: torch.dtype,
) -> Tensor:
    """Gradient (k, V) by the product, from those by log-probabilities and entropies, rounded last."""
    logits = _shaped(logits, bias, shape)
    slope = _slope(logits, shape)
    by_logp = -grad[:, None]
    logits.sub_(norm[:, None])
    if entropy is not None:  # dH/dz = -p (log p + H)
        by_logp = by_logp - entropy_grad[:, None] * (logits + entropy[:, None])
    pulled = logits.exp_().mul_(by_logp)
    pulled.scatter_add_(1, target[:, None], grad[:, None].to(pulled.dtype))
    return _through(pulled, slope, shape).to(dtype)


def _slope(logits: Tensor, shape: Shape) -> Tensor | None:
    """Of the tanh of the soft cap, from capped logits before these are overwritten."""
    return None if shape.softcap is None else 1 - (logits / shape.softcap) ** 2


def _through(pulled: Tensor, slope: Tensor | None, shape: Shape) -> Tensor:
    """A gradient by shaped logits, as one by the product; in place."""
    if slope is not None:
        pulled *= slope
    if shape.scale != 1.0:
        pulled *= shape.scale
    return pulled


@functools.cache
def _fused(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its passes over a chunk's logits in one kernel; as it is, with a warning, where
    nothing can be compiled.

    With a pass for each operation, forward and backward at K = 8,192, H = 4,096, V = 151,936 took 129 ms
    in bfloat16 (H200, 2026-11-26), full logits 57 ms.
    """
    from torch._dynamo.exc import TorchDynamoException  # slow to import, and asked for on GPUs only

    way = [torch.compile(function, dynamic=True)]

    def fused(*given: Any) -> Any:
        try:
            return way[0](*given)
        except TorchDynamoException as error:  # raised before anything was computed
            first = str(error).partition("\n")[0][:200]
            warnings.warn(f"the head runs uncompiled, which is slower ({first})", stacklevel=2)
            way[0] = function
            return function(*given)

    return fused


class _LogpsOfFrozen(torch.autograd.Function):
    """Under a head that is not trained: gradients are made in the forward pass, but for a factor."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_KH: Tensor,
        weight_VH: Tensor,
        bias_V: Tensor | None,
        target_K: Tensor,
        shape: Shape,
        chunk: int,
    ) -> Tensor:
        size = len(hidden_KH)
        logp_K = hidden_KH.new_empty(size, dtype=torch.float32)
        slope_KH = torch.empty_like(hidden_KH)
        read = _fused(_read_and_pulled) if hidden_KH.is_cuda else _read_and_pulled
        for part in _parts(size, chunk):
            logits = product(hidden_KH[part], weight_VH)
            given = (logits, bias_V, target_K[part], shape, hidden_KH.dtype)
            logp_K[part], pulled = read(*given)
            slope_KH[part] = product(pulled, weight_VH.t())
        ctx.save_for_backward(slope_KH)
        return logp_K

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (slope_KH,) = ctx.saved_tensors
        return (slope_KH * gradients[0][:, None]).to(slope_KH.dtype), *[None] * 5


class _ChunkedLogps(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_KH: Tensor,
        weight_VH: Tensor,
        bias_V: Tensor | None,
        target_K: Tensor,
        shape: Shape,
        chunk: int,
        entropy: bool,
    ) -> tuple[Tensor, Tensor]:
        size = hidden_KH.shape[0]
        logp_K = hidden_KH.new_empty(size, dtype=torch.float32)
        norm_K = torch.empty_like(logp_K)
        entropy_K = torch.empty_like(logp_K) if entropy else logp_K.new_empty(0)
        read = _fused(_read) if hidden_KH.is_cuda else _read
        for part in _parts(size, chunk):
            logits = product(hidden_KH[part], weight_VH)
            logp_K[part], norm_K[part], spread = read(
                logits, bias_V, target_K[part], shape, entropy
            )
            if spread is not None:
                entropy_K[part] = spread
        ctx.save_for_backward(hidden_KH, weight_VH, bias_V, target_K, norm_K, entropy_K)
        ctx.shape, ctx.chunk = shape, chunk
        return logp_K, entropy_K

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        grad_K, entropy_grad_K = gradients
        hidden_KH, weight_VH, bias_V, target_K, norm_K, entropy_K = ctx.saved_tensors
        need_h, need_w, need_b, *_ = ctx.needs_input_grad
        grad_h = torch.empty_like(hidden_KH) if need_h else None
        # Summed over many chunks: in half precision the small ones would be rounded away.
        grad_w = torch.zeros_like(weight_VH, dtype=torch.float32) if need_w else None
        grad_b = torch.zeros_like(bias_V, dtype=torch.float32) if need_b else None
        pull = _fused(_pulled) if hidden_KH.is_cuda else _pulled
        # A bias sums what is not rounded yet.
        dtype = hidden_KH.dtype if grad_b is None else torch.float32
        for part in _parts(len(norm_K), ctx.chunk):
            logits = product(hidden_KH[part], weight_VH)
            entropy = entropy_K[part] if len(entropy_K) else None
            given = (logits, bias_V, target_K[part], norm_K[part], grad_K[part])
            grad = pull(*given, entropy, entropy_grad_K[part], ctx.shape, dtype)
            low = grad.to(hidden_KH.dtype)
            if grad_h is not None:
                grad_h[part] = product(low, weight_VH.t())
            if grad_w is not None:
                _accumulate(grad_w, low, hidden_KH[part])
            if grad_b is not None:
                grad_b += grad.sum(0)
        by_w = None if grad_w is None else grad_w.to(weight_VH.dtype)
        by_b = None if grad_b is None else grad_b.to(bias_V.dtype)
        return grad_h, by_w, by_b, *[None] * 4


def _accumulate(total_VH: Tensor, grad_kV: Tensor, hidden_kH: Tensor) -> None:
    """Add a chunk's gradient by the weight to the float32 sum."""
    if grad_kV.dtype == total_VH.dtype:
        total_VH.addmm_(grad_kV.t(), hidden_kH)
    else:
        total_VH += torch.mm(grad_kV.t(), hidden_kH)


def _parts(size: int, chunk: int) -> list[slice]:
    return [slice(start, min(start + chunk, size)) for start in range(0, size, chunk)]
