"""LoRA's layers in fewer passes over memory: the same numbers as PEFT's, up to the rounding of a sum.

    y = W x + s B (A x)

PEFT makes the second part as tensors of y's size: the product, that times s, the sum, in half precision
each in float32, and their gradients one by one, with a float32 copy of x kept for each layer that reads
it. Here the product is added where the first part lies, the gradient by x in the same way, and x itself
is all that is kept. The precisions are PEFT's: the adapter's own for its products, the base's for the
result.

Only what is exactly that is run so: one adapter of plain LoRA, on a frozen linear layer, without
dropout; everything else (several adapters, DoRA, merged or disabled ones, quantised bases, autocast)
runs as PEFT has it.

Legend: N tokens, I inputs and O outputs of a layer, R rank.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from onestage.models.products import linear, product


def in_fewer_passes(model: nn.Module) -> None:
    """Run the LoRA layers of a model so, in place, wherever that means the same."""
    for layer in _layers(model):
        layer.forward = MethodType(_forward, layer)


def in_pefts_passes(model: nn.Module) -> list[Any]:
    """Run the LoRA layers of a model as PEFT has it, in place; returns those that were not."""
    mine = [layer for layer in _layers(model) if "forward" in vars(layer)]
    for layer in mine:
        del layer.forward
    return mine


@contextlib.contextmanager
def as_peft_does(model: nn.Module) -> Iterator[None]:
    """PEFT's own layers inside: what ours are measured against."""
    mine = in_pefts_passes(model)
    try:
        yield
    finally:
        for layer in mine:
            layer.forward = MethodType(_forward, layer)


def _layers(model: nn.Module) -> list[Any]:
    if not any("lora_" in name for name, _ in model.named_parameters()):
        return []
    from peft.tuners.lora import Linear

    return [module for module in model.modules() if type(module) is Linear]


def _forward(layer: Any, x: Tensor, *more: Any, **options: Any) -> Any:
    """What PEFT's `Linear.forward` does, which is asked where the layer is not the plain case."""
    adapter = None if more or options else _only_adapter(layer)
    if adapter is None or torch.is_autocast_enabled(x.device.type):
        return type(layer).forward(layer, x, *more, **options)
    base = layer.base_layer
    low, high = (part[adapter].weight for part in (layer.lora_A, layer.lora_B))
    return _Adapted.apply(x, base.weight, base.bias, low, high, layer.scaling[adapter])


def _only_adapter(layer: Any) -> str | None:
    """The adapter of a layer that is the plain case; else None."""
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    base = layer.base_layer
    if (
        len(names) != 1
        or layer.disable_adapters
        or layer.merged
        or layer.lora_variant
        or type(base) is not nn.Linear
        or base.weight.requires_grad
        or (base.bias is not None and base.bias.requires_grad)
        or _hooked(base, layer.lora_A[names[0]], layer.lora_B[names[0]])
        or layer.lora_B[names[0]].bias is not None
        or not layer.cast_input_dtype_enabled
    ):
        return None
    dropout = layer.lora_dropout[names[0]]
    plain = isinstance(dropout, nn.Identity) or not dropout.training
    return names[0] if plain else None


def _hooked(*modules: nn.Module) -> bool:
    """Whether somebody listens to a part that would not be called."""
    return any(
        one._forward_hooks or one._forward_pre_hooks or one._backward_hooks for one in modules
    )


class _Adapted(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight_OI: Tensor,
        bias_O: Tensor | None,
        low_RI: Tensor,
        high_OR: Tensor,
        scale: float,
    ) -> Tensor:
        x_NI = x.reshape(-1, x.shape[-1])
        out_NO = linear(x_NI, weight_OI, bias_O)
        x_NR = product(x_NI.to(low_RI.dtype), low_RI)
        dtype = out_NO.dtype
        out_NO = out_NO.to(high_OR.dtype).addmm_(x_NR, high_OR.t(), alpha=scale).to(dtype)
        ctx.save_for_backward(x_NI, weight_OI, low_RI, high_OR, x_NR)
        ctx.scale, ctx.shape = scale, x.shape
        return out_NO.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x_NI, weight_OI, low_RI, high_OR, x_NR = ctx.saved_tensors
        need_x, _, _, need_low, need_high, _ = ctx.needs_input_grad
        grad_NO = gradients[0].reshape(-1, gradients[0].shape[-1])
        wide_NO = grad_NO.to(high_OR.dtype)
        grad_NR = torch.mm(wide_NO, high_OR).mul_(ctx.scale)
        by_x = by_low = by_high = None
        if need_x:
            by_x = product(grad_NO, weight_OI.t()).to(low_RI.dtype).addmm_(grad_NR, low_RI)
            by_x = by_x.to(x_NI.dtype).view(ctx.shape)
        if need_low:
            by_low = product(grad_NR.t(), x_NI.to(low_RI.dtype).t())
        if need_high:
            # Turned over: a product of few rows takes half the time of one of few columns.
            by_high = product(x_NR.t(), wide_NO.t()).mul_(ctx.scale).t().contiguous()
        return by_x, None, None, by_low, by_high, None
