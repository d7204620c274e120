"""From hidden states to log-probabilities without ever holding full logits.

    logp_K = log softmax(cap(scale * (h_K W^T + b)))[target_K]

and, where it is asked for, the entropy of the same distribution, H_K = - sum_v p_v log p_v.

Logits are made in chunks of positions; the backward pass makes them again instead of keeping them,
so memory is one chunk whatever the vocabulary. Values and gradients equal the naive computation
(law 3).

Legend: K scored positions, H hidden size, V vocabulary.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from onestage.data.trees import TokenPath

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
    logits = torch.nn.functional.linear(hidden_KH.to(weight_VH.dtype), weight_VH, bias_V).float()
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
    logp_K: Tensor = _apply(hidden_KH, weight_VH, bias_V, target_K, shape, chunk, False)[0]
    return logp_K


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
    device = hidden_KH.device.type
    if torch.is_autocast_enabled(device):
        hidden_KH, weight_VH = (
            x.to(torch.get_autocast_dtype(device)) for x in (hidden_KH, weight_VH)
        )
    if chunk is None:
        elements = CHUNK_ELEMENTS.get(device, CHUNK_ELEMENTS["cuda"])
        chunk = max(FEWEST, elements // weight_VH.shape[0] // FEWEST * FEWEST)
    found: tuple[Tensor, Tensor] = _ChunkedLogps.apply(
        hidden_KH, weight_VH, bias_V, target_K, shape, chunk, entropy
    )
    return found


def _product(h: Tensor, weight: Tensor, out: Tensor | None) -> Tensor:
    """Logits (k, V) as the head's product leaves them, made in `out` where there is one."""
    return torch.mm(h, weight.t(), out=None if out is None else out[: len(h)])


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
    slope = None
    if shape.softcap is not None:
        # Of the tanh; taken now, because the capped logits are overwritten below.
        slope = 1 - (logits / shape.softcap) ** 2
    by_logp = -grad[:, None]
    logits.sub_(norm[:, None])
    if entropy is not None:  # dH/dz = -p (log p + H)
        by_logp = by_logp - entropy_grad[:, None] * (logits + entropy[:, None])
    pulled = logits.exp_().mul_(by_logp)
    pulled.scatter_add_(1, target[:, None], grad[:, None].to(pulled.dtype))
    if slope is not None:
        pulled *= slope
    if shape.scale != 1.0:
        pulled *= shape.scale
    return pulled.to(dtype)


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
        hidden_KH = hidden_KH.to(weight_VH.dtype)
        size = hidden_KH.shape[0]
        logp_K = hidden_KH.new_empty(size, dtype=torch.float32)
        norm_K = torch.empty_like(logp_K)
        entropy_K = torch.empty_like(logp_K) if entropy else logp_K.new_empty(0)
        buffer = _buffer(hidden_KH, weight_VH, chunk)
        read = _fused(_read) if hidden_KH.is_cuda else _read
        for part in _parts(size, chunk):
            logits = _product(hidden_KH[part], weight_VH, buffer)
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
        buffer = _buffer(hidden_KH, weight_VH, ctx.chunk)
        pull = _fused(_pulled) if hidden_KH.is_cuda else _pulled
        # A bias sums what is not rounded yet.
        dtype = hidden_KH.dtype if grad_b is None else torch.float32
        for part in _parts(len(norm_K), ctx.chunk):
            logits = _product(hidden_KH[part], weight_VH, buffer)
            entropy = entropy_K[part] if len(entropy_K) else None
            given = (logits, bias_V, target_K[part], norm_K[part], grad_K[part])
            grad = pull(*given, entropy, entropy_grad_K[part], ctx.shape, dtype)
            low = grad.to(hidden_KH.dtype)
            if grad_h is not None:
                torch.mm(low, weight_VH, out=grad_h[part])
            if grad_w is not None:
                _accumulate(grad_w, low, hidden_KH[part])
            if grad_b is not None:
                grad_b += grad.sum(0)
        return (
            grad_h,
            None if grad_w is None else grad_w.to(weight_VH.dtype),
            None if grad_b is None else grad_b.to(bias_V.dtype),
            None,
            None,
            None,
            None,
        )


def _buffer(hidden_KH: Tensor, weight_VH: Tensor, chunk: int) -> Tensor | None:
    """Where a float32 head makes the logits of all chunks, one after the other."""
    if hidden_KH.dtype != torch.float32:
        return None
    return hidden_KH.new_empty(min(chunk, len(hidden_KH)), weight_VH.shape[0])


def _accumulate(total_VH: Tensor, grad_kV: Tensor, hidden_kH: Tensor) -> None:
    """Add a chunk's gradient by the weight to the float32 sum."""
    if grad_kV.dtype == total_VH.dtype:
        total_VH.addmm_(grad_kV.t(), hidden_kH)
    else:
        total_VH += torch.mm(grad_kV.t(), hidden_kH)


def _parts(size: int, chunk: int) -> list[slice]:
    return [slice(start, min(start + chunk, size)) for start in range(0, size, chunk)]


def head_difference(model: Any, path: TokenPath) -> tuple[float, float]:
    """Largest difference of the chunked head from full logits on a path: values, gradients (law 3).

    Gradients are those of the summed log-probability by the hidden states, relative to their
    largest, or to the head's largest weight: they are differences of its rows, so where the model
    is sure of every token what is left of them is the rounding of those.
    """
    hidden_KH, target_K, full_K = _said(model, path)
    head, shape = model.get_output_embeddings(), shape_of(model.config)
    weight_VH, bias_V = head.weight.detach(), getattr(head, "bias", None)
    chunked_K = token_logps(hidden_KH, weight_VH, target_K, bias_V=bias_V, shape=shape, chunk=16)
    (mine,) = torch.autograd.grad(chunked_K.sum(), hidden_KH)
    theirs = _full_gradient(model, hidden_KH, target_K)
    values = (chunked_K - full_K).abs().max()
    return values.item(), _of_their_size(mine, theirs, model)


def head_rounding(model: Any, path: TokenPath) -> float:
    """How far the gradients of full logits move, as `head_difference` has it, where positions are taken
    one at a time: a product with one row sums over the vocabulary in another order."""
    hidden_KH, target_K, _ = _said(model, path)
    together = _full_gradient(model, hidden_KH, target_K)
    apart = [
        _full_gradient(model, hidden_KH[k : k + 1].detach().requires_grad_(), target_K[k : k + 1])
        for k in range(len(target_K))
    ]
    return _of_their_size(torch.cat(apart), together, model)


def _said(model: Any, path: TokenPath) -> tuple[Tensor, Tensor, Tensor]:
    """Of a path's scored tokens: the states they are predicted from (K, H; a leaf that takes gradients),
    their ids, and their log-probabilities by the model's own logits."""
    at = np.concatenate([np.arange(start, end) for start, end in path.spans])
    at_K = torch.from_numpy(at).to(model.device)
    ids = torch.from_numpy(path.ids.astype(np.int64)).to(model.device)
    target_K = ids[at_K]
    with torch.no_grad():
        hidden = model.base_model(input_ids=ids[None], use_cache=False).last_hidden_state
        full = model(input_ids=ids[None], use_cache=False).logits[0, at_K - 1].float()
        full_K = torch.log_softmax(full, -1).gather(1, target_K[:, None])[:, 0]
    return hidden[0, at_K - 1].detach().requires_grad_(), target_K, full_K


def _full_gradient(model: Any, hidden_KH: Tensor, target_K: Tensor) -> Tensor:
    head, shape = model.get_output_embeddings(), shape_of(model.config)
    weight_VH, bias_V = head.weight.detach().float(), getattr(head, "bias", None)
    logits = full_logits(hidden_KH.float(), weight_VH, bias_V, shape)
    naive_K = torch.log_softmax(logits, -1).gather(1, target_K[:, None])[:, 0]
    gradient: Tensor = torch.autograd.grad(naive_K.sum(), hidden_KH)[0]
    return gradient


def _of_their_size(mine: Tensor, theirs: Tensor, model: Any) -> float:
    weight, shape = model.get_output_embeddings().weight, shape_of(model.config)
    scale = torch.maximum(theirs.abs().max(), weight.detach().abs().max() * shape.scale)
    return ((mine - theirs).abs().max() / scale).item()
