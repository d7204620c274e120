"""Float32 masters of weights that are held in less: what the optimiser steps.

A weight of 0.03 in bfloat16 has its neighbours 0.0001 away, and a step of AdamW is about as long as the
learning rate: most steps of 5e-5 round back to where they came from (of SmolLM2's weights 8 % moved in
40 steps, of those with masters 66 %: `bench/trust/precision.py`). So the optimiser steps a float32 copy,
on which gradients are added up in float32, and the weight that the model computes with is the copy
rounded (Micikevicius et al. 2018, arXiv 1710.03740, section 3.1). What is trained, measured, sampled
from and saved is thus one model, the rounded one, bit for bit; the copies are what a checkpoint needs
beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Masters:
    """The masters of a model's trained weights. A weight in float32 or more is its own."""

    def __init__(self, model: nn.Module) -> None:
        self.rounded: dict[str, nn.Parameter] = {
            name: parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and torch.finfo(parameter.dtype).bits < 32
        }
        """The weights that have a master beside them, by name."""
        self.exact = {name: nn.Parameter(p.detach().float()) for name, p in self.rounded.items()}
        """Their masters."""
        self._of = {id(p): self.exact[name] for name, p in self.rounded.items()}

    def of(self, parameters: Iterable[Tensor]) -> list[Tensor]:
        """What the optimiser steps of these: the masters, or the weights themselves."""
        return [self._of.get(id(parameter), parameter) for parameter in parameters]

    def gather(self) -> None:
        """Move the gradients that lie on the weights to their masters."""
        for name, parameter in self.rounded.items():
            if parameter.grad is None:
                continue
            master, gradient = self.exact[name], parameter.grad.float()
            master.grad = gradient if master.grad is None else master.grad.add_(gradient)
            parameter.grad = None

    @torch.no_grad()
    def round(self) -> None:
        """Give the model the masters, rounded, after a step."""
        for name, parameter in self.rounded.items():
            parameter.copy_(self.exact[name])

    def state(self) -> dict[str, Tensor]:
        return {name: master.detach() for name, master in self.exact.items()}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from the masters of a checkpoint; its weights are in the model already.

        Of a checkpoint that was written without any, from the weights.
        """
        for name, master in self.exact.items():
            master.copy_(state.get(name, self.rounded[name]))
