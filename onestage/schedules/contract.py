"""A schedule decides how much weight each term of the loss has in a step. Arithmetic, no torch.

A term is an objective together with the records it is given. A schedule never sees a model or a
tensor: losses reach it as floats.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Schedule(Protocol):
    def weights(self, step: int) -> Mapping[str, float]:
        """Weight of each term's mean loss in the step; a term of weight 0 is not trained on."""

    def refresh(self, step: int) -> bool:
        """Whether this step wants all losses measured."""

    def observe(self, step: int, losses: Mapping[str, float]) -> None:
        """Take in the measured losses."""
