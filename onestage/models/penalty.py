"""A sparse change of the weights: an L1 penalty on what the adapters add to the base.

PAFT (Pentyala et al. 2024, arXiv 2406.17923) adds `lambda * ||delta_sft||_1` to the SFT loss, so that
few entries of the SFT delta remain to disagree with those of the preference delta when both are
merged. Here delta is what a LoRA layer adds to its weight, `s B A`, entry by entry, and not the
factors A and B: small factors do not make a sparse product.

    P = weight * sum_layers sum_ij |(s B A)_ij|
    dP/dB = weight * s * S A^T,  dP/dA = weight * s * B^T S,  S = sign(B A)

The subgradient of |0| is taken as 0, so a fresh adapter (B = 0) feels nothing. A step of a
gradient optimiser makes entries small, not exactly 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from onestage.models.sharding import full, part_like
from onestage.models.yardstick import wide

Factors = tuple[nn.Parameter, nn.Parameter, float]
"""A (r, in), B (out, r) and the scaling s of one adapter in one layer."""


@dataclass(frozen=True)
class DeltaL1:
    """The penalty on the active adapters of `model`, added to gradients that are there already.

    Call it between the backward pass and the step of the optimiser, before gradients are clipped,
    once a step and not once a micro-batch, and after gradients were summed over processes: each of them
    adds the same (where adapters lie in parts, to its part).

    Raises `ValueError` at construction for a weight that is negative or not finite, for a model
    without LoRA layers, and for adapters whose delta is not `s B A` (DoRA and its like, convolutions).
    """

    weight: float
    model: Any = field(repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.weight < float("inf"):
            raise ValueError(
                f"the L1 weight must be a finite number from 0 on, found {self.weight}"
            )
        if not list(_factors(self.model)):
            raise ValueError(
                "an L1 penalty on the delta needs a model with trained LoRA adapters, and this one "
                "has none: set model.lora"
            )

    @torch.no_grad()
    def __call__(self, model: Any) -> Tensor:
        """Add the penalty's gradient to A.grad and B.grad; returns the penalty's value (a scalar).

        Computed in float32 whatever the adapters' precision. One layer's dense delta (out, in)
        exists at a time.
        """
        total = torch.zeros(())
        for A, B, scaling in _factors(model):
            whole_A, whole_B = full(A).float(), full(B).float()
            delta = (whole_B @ whole_A).mul_(scaling)
            total = total.to(delta.device, wide(delta.device)) + delta.abs().sum()
            if self.weight:
                sign = delta.sign_().mul_(self.weight * scaling)
                _add(B, sign @ whole_A.T)
                _add(A, whole_B.T @ sign)
        return self.weight * total


def _add(parameter: nn.Parameter, gradient: Tensor) -> None:
    gradient = part_like(gradient.to(parameter.dtype), parameter)
    parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)


def _factors(model: nn.Module) -> Iterator[Factors]:
    """A, B and scaling of each layer's active adapters that are being trained."""
    from peft.tuners.lora import LoraLayer

    for name, module in model.named_modules():
        if not isinstance(module, LoraLayer):
            continue
        layer: Any = module
        for adapter in layer.active_adapters:
            if adapter in layer.lora_A:
                A, B = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
            elif adapter in layer.lora_embedding_A:
                A, B = layer.lora_embedding_A[adapter], layer.lora_embedding_B[adapter]
            else:
                continue
            if adapter in layer.lora_variant or A.dim() != 2:
                raise ValueError(
                    f"an L1 penalty on the delta knows plain LoRA on linear and embedding layers; "
                    f"{name} is {type(layer).__name__} with "
                    f"{type(layer.lora_variant.get(adapter)).__name__}"
                )
            if A.requires_grad and B.requires_grad:
                yield A, B, float(layer.scaling[adapter])
