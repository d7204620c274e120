"""Averages of the iterates: of the weights that training passes through, not only the last.

Averaging is a cheap improvement that Fernando et al. do not use: on construction B of xright.md 2.4
the averaged iterate of ALRIGHT is 2 to 50 times closer to the optimum than the last one. `ema`
forgets exponentially (Polyak averaging with decay); `tail` is the plain mean of the last part of the
run (suffix averaging). With low-rank adapters the factors A and B are averaged, each on its own,
which is near the average of their products while these differ little.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from onestage.models.masters import Masters

Kind = Literal["ema", "tail"]


class Average:
    """A running average (float32) of the trained weights of a model: of their masters, where they have
    some."""

    def __init__(
        self, model: nn.Module, masters: Masters, kind: Kind, *, decay: float, start: int
    ) -> None:
        """`decay`: of `ema`, per step. `start`: the step after which averaging begins."""
        self.kind, self.decay, self.start = kind, decay, start
        self.trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.stepped = dict(zip(self.trained, masters.of(self.trained.values()), strict=True))
        self.mean: dict[str, Tensor] = {}
        self.count = 0

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights as they stand after `step` steps."""
        if step <= self.start:
            return
        self.count += 1
        if not self.mean:
            self.mean = {name: p.detach().float().clone() for name, p in self.stepped.items()}
            return
        # Early on an exponential average is the plain mean of what it has seen.
        plain = 1 / self.count
        rate = plain if self.kind == "tail" else max(plain, 1 - self.decay)
        for name, parameter in self.stepped.items():
            self.mean[name].lerp_(parameter.detach().float(), rate)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model with averaged weights; the last iterate is put back afterwards, bit for bit."""
        kept = {name: p.detach().clone() for name, p in self.trained.items() if self.mean}
        with torch.no_grad():
            for name in kept:
                self.trained[name].copy_(self.mean[name])
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in kept.items():
                    self.trained[name].copy_(value)

    def state(self) -> dict[str, Any]:
        return {"mean": self.mean, "count": self.count}

    def restore(self, state: Mapping[str, Any]) -> None:
        first = next(iter(self.trained.values()))
        self.mean = {name: value.to(first.device) for name, value in state["mean"].items()}
        self.count = state["count"]
