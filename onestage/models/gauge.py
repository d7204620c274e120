"""A gauge of gradients: groups of records told apart in one backward pass, in little room.

The gradient of a linear layer's weight is a sum over tokens, sum_t (dL / dy_t) x_t' of y = W x. In a
forest row a token belongs to one record (or to a few that begin alike), and what goes backward through
it is that record's loss alone, in every layer. So the gradients of groups of records can be told apart
although they went backward together. Looked at are some of the layers that are trained, spread evenly
over the model and over their kinds: `LAYERS` of them. Of LoRA it is the gradient by B, which is s sum_t
(dL / dy_t) (A x_t)'; that by A is 0 at the start, when B is, and stays small beside it.

Kept of each is a sketch: of sums over tokens of left_t right_t', coordinates are folded together with
random signs until `SIZE` are left on either side, which keeps inner products in the mean. What has no
more is kept as it is.

Legend: G groups, N tokens, S and R numbers that are left on the sides of a layer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

LAYERS = 24
"""Of the layers that are trained. On SmolLM2 a share of the terms' norms is then .01 from that by all of
them, and a cosine .03 (docs/schedules.md)."""
SIZE = 64
"""Numbers on a side: an inner product in one layer is off by at most sqrt(4 / SIZE) = 25 % of the
product of the lengths, for gradients of a single token; over many tokens and layers by much less."""

Shares = Sequence[NDArray[np.float32]]
"""Of each forward pass of a row, how much of each token is each group's (N, G)."""


@dataclass
class Layer:
    """One that is looked at."""

    module: Any
    number: int
    low: str | None = None
    """Of LoRA: the name of the adapter; None where the layer's own weight is trained."""
    passes: int = 0
    """Forward passes of the row that it has seen."""

    @torch.no_grad()
    def right(self, x_NI: Tensor) -> Tensor:
        """What the gradient by each output is multiplied by (N, R): the input, folded or through A."""
        if self.low is None:
            return folded(x_NI, 2 * self.number)
        weight = self.module.lora_A[self.low].weight
        with torch.autocast(x_NI.device.type, enabled=False):
            right_NR = x_NI.to(weight.dtype) @ weight.T
        return right_NR.float() * self.module.scaling[self.low]


class Gauge:
    """Adds up the sketches of all that goes backward after it was told whose tokens they are."""

    def __init__(self, groups: int, model: nn.Module, device: torch.device) -> None:
        """device: where the model computes. Raises `ValueError` for a model none of whose linear layers
        is trained."""
        self.groups, self.device = groups, device
        self.layers = list(_spread(list(_trained(model))))
        if not self.layers:
            raise ValueError("no linear layer of it is trained")
        self._shares: list[Tensor] | None = None
        self._found: dict[int, Tensor] = {}
        self._missed = False
        self._hooks = [
            layer.module.register_forward_hook(
                lambda module, given, out, layer=layer: self._watch(layer, given, out)
            )
            for layer in self.layers
        ]

    def close(self) -> None:
        """Listen no more."""
        for hook in self._hooks:
            hook.remove()

    def expect(self, shares: Shares | None) -> None:
        """Say whose the tokens of the next row are, in each of its forward passes; None: nothing is
        looked at."""
        self._shares = None
        if shares is not None:
            self._shares = [
                torch.from_numpy(share_NG).to(self.device, non_blocking=True) for share_NG in shares
            ]
        for layer in self.layers:
            layer.passes = 0

    def _watch(self, layer: Layer, given: tuple[Any, ...], out: Tensor) -> None:
        # A second run for checkpointed activations finds all passes seen, and goes nowhere itself.
        if self._shares is None or not out.requires_grad or layer.passes == len(self._shares):
            return
        share_NG = self._shares[layer.passes]
        layer.passes += 1
        x_NI = given[0].detach().flatten(0, -2)
        if len(x_NI) < len(share_NG):  # a row that was announced whole goes path by path
            self._missed = True
            return
        # Behind the tokens of a row may stand some that fill it up.
        right_NR = layer.right(x_NI[: len(share_NG)])
        right_NGR = share_NG[:, :, None] * right_NR[:, None]
        out.register_hook(lambda slope: self._add(layer, slope, right_NGR))

    @torch.no_grad()
    def _add(self, layer: Layer, slope: Tensor, right_NGR: Tensor) -> None:
        left_NS = folded(slope.flatten(0, -2)[: len(right_NGR)], 2 * layer.number + 1)
        found = (left_NS.T @ right_NGR.flatten(1)).view(-1, *right_NGR.shape[1:])
        before = self._found.get(layer.number)
        self._found[layer.number] = found if before is None else before.add_(found)

    def take(self) -> Tensor:
        """The sketches (G, D) of what has gone backward since they were taken last, of all layers; NaN
        where some of it went another way than it was told, and was not looked at."""
        parts = [self._found.get(layer.number) for layer in self.layers]
        nothing = math.nan if self._missed else 0.0
        self._found, self._missed = {}, False
        sizes = [self._size(layer) for layer in self.layers]
        made = [
            torch.zeros(self.groups, size, device=self.device)
            if part is None
            else part.transpose(0, 1).flatten(1)
            for part, size in zip(parts, sizes, strict=True)
        ]
        return torch.cat(made, 1) + nothing

    def _size(self, layer: Layer) -> int:
        """Numbers that are kept of a group."""
        inputs, outputs = sides_of(layer.module)
        right = min(SIZE, inputs) if layer.low is None else layer.module.r[layer.low]
        return min(SIZE, outputs) * int(right)


def folded(x_NI: Tensor, seed: int) -> Tensor:
    """Coordinates with random signs, added up until `SIZE` are left (N, S): the same in every run, so
    that runs can be compared."""
    x_NI, size = x_NI.float(), x_NI.shape[-1]
    if size <= SIZE:
        return x_NI
    whole = nn.functional.pad(x_NI * signs(size, seed, x_NI.device), (0, -size % SIZE))
    return whole.view(len(x_NI), -1, SIZE).sum(1)


@cache
def signs(size: int, seed: int, device: torch.device) -> Tensor:
    """As many times 1 or -1."""
    draw = torch.Generator().manual_seed(seed)
    return (2 * torch.randint(0, 2, (size,), generator=draw) - 1).to(device)


def sides_of(module: Any) -> tuple[int, int]:
    """Inputs and outputs of a linear layer."""
    if hasattr(module, "in_features"):
        return module.in_features, module.out_features
    inputs, outputs = module.weight.shape  # of GPT-2's, which is the other way round
    return inputs, outputs


def _trained(model: Any) -> Iterator[tuple[Any, str | None]]:
    """The linear layers that are trained, and by which adapter. Not those of experts, which see some of
    the tokens alone, nor the head: a language model's weight is read apart, and a reward model's sees
    scored tokens only."""
    said = [model.get_output_embeddings()] if hasattr(model, "get_output_embeddings") else []
    said.append(getattr(model, "score", None))
    # With what lies inside: PEFT trains a copy of a head.
    heads = {id(part) for head in said if head is not None for part in head.modules()}
    for name, module in model.named_modules():
        if "expert" in name or "lora_" in name or id(module) in heads:
            continue
        held = getattr(module, "lora_B", ())
        # Of adapters that are stacked, one is frozen.
        low = [k for k in held if k in module.active_adapters and held[k].weight.requires_grad]
        if low and hasattr(module, "in_features"):
            yield module, low[0]
        elif type(module).__name__ in ("Linear", "Conv1D") and module.weight.requires_grad:
            yield module, None


def _spread(found: Sequence[tuple[Any, str | None]]) -> Iterator[Layer]:
    """At most `LAYERS` of them, spread evenly."""
    count = min(LAYERS, len(found))
    for number in range(count):
        module, low = found[int((number + 0.5) * len(found) / count)]
        yield Layer(module, number, low)
