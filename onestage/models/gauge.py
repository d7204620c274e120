"""A gauge of gradients: several groups of tokens told apart in one backward pass, in little room.

Between the last hidden states and the head one might put a linear map that changes nothing. Its
gradient, sum_t (dL / dh_t) h_t', is a sum over tokens, and each token's loss has its own: so groups of
tokens can be told apart although their losses went backward together, whatever the model below is and
whatever of it is trained. It is not the gradient of the trained weights, but that of the last layer
there could be.

Kept of it is a sketch from both sides, P' G Q with P and Q of S columns of random numbers of variance
1/S, which keeps inner products in the mean: <P' A Q, P' B Q> has mean <A, B>. Where states are no longer
than S, G is kept as it is.

Legend: G groups, S size of the sketch, H hidden size, K scored entries of a row, U distinct scored
nodes.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SIZE = 128
"""S: an inner product is then off by at most sqrt(4 / S) = 18 % of the product of the lengths, for
gradients of a single token; for those of many, which spread over more directions, by less."""


class Gauge:
    """Adds up the sketches of all that goes backward after it was told whose tokens they are."""

    def __init__(self, groups: int, hidden: int, device: torch.device) -> None:
        # The same in every run, so that runs can be compared.
        draw = torch.Generator().manual_seed(0)
        size = min(SIZE, hidden)
        self._sides = [
            torch.eye(hidden, device=device)
            if size == hidden
            else (torch.randn(hidden, size, generator=draw) / size**0.5).to(device)
            for _ in range(2)
        ]
        self._zeros = torch.zeros(groups, size, size, device=device)
        self.sketch_GSS = self._zeros.clone()
        self._group_K: Tensor | None = None
        self._passed = 0

    def expect(self, group_K: NDArray[np.int64] | None) -> None:
        """Say which group each scored entry of the next row belongs to; None: it is not looked at."""
        self._passed = 0
        self._group_K = None
        if group_K is not None:
            self._group_K = torch.from_numpy(group_K).to(self._zeros.device, non_blocking=True)

    def watch(self, hidden_UH: Tensor, entry_K: NDArray[np.int64]) -> None:
        """Look at the gradient of these states when it comes. `entry_K`: of the row's next entries, the
        number of the state that each is read off. A state that several are read off counts for their
        groups in equal parts: which are joined in a row depends on how rows are cut."""
        if self._group_K is None or not hidden_UH.requires_grad:
            return
        group_K = self._group_K[self._passed : self._passed + len(entry_K)]
        self._passed += len(entry_K)
        place_K = torch.from_numpy(entry_K).to(group_K.device, non_blocking=True)
        count_UG = hidden_UH.new_zeros(len(hidden_UH), len(self._zeros), dtype=torch.float32)
        count_UG.index_put_((place_K, group_K), count_UG.new_ones(()), accumulate=True)
        share_UG, state_UH = count_UG / count_UG.sum(1, keepdim=True), hidden_UH.detach()
        hidden_UH.register_hook(lambda slope_UH: self._add(slope_UH, state_UH, share_UG))

    @torch.no_grad()
    def _add(self, slope_UH: Tensor, state_UH: Tensor, share_UG: Tensor) -> None:
        left_US, right_US = (
            part.float() @ side
            for part, side in zip((slope_UH, state_UH), self._sides, strict=True)
        )
        for group, sketch_SS in enumerate(self.sketch_GSS):
            sketch_SS.addmm_((left_US * share_UG[:, group, None]).T, right_US)

    def take(self) -> Tensor:
        """The sketches (G, S, S) of what has gone backward since they were taken last."""
        found, self.sketch_GSS = self.sketch_GSS, self._zeros.clone()
        return found
