"""The model as it was before the first step, for runs that need it again while they train.

Responses that are sampled cannot be scored by the reference beforehand. A copy of the trained weights
(with low-rank adapters that is little) is kept and changes places with them for as long as it is asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from onestage.policy.policy import Policy


class StartWeights:
    """Made before the first step, also of a run that is resumed."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.trained = [p for p in policy.model.parameters() if p.requires_grad]
        self.start = [p.detach().clone() for p in self.trained]

    @contextmanager
    def in_place(self) -> Iterator[Policy]:
        """The policy with its first weights; the trained ones are back afterwards."""
        self._swap()
        try:
            yield self.policy
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for number, parameter in enumerate(self.trained):
            parameter.data, self.start[number] = self.start[number], parameter.data
