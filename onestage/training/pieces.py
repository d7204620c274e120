"""A row goes backward: in one go, or in pieces where it is longer than `tokens_per_row` allows.

An objective wants all answers of a group at once, and the gradient of its loss by each of their
log-probabilities depends on all of them. So a long row is looked at twice: without gradients, piece by
piece, for the loss and its gradient by what the policy says; then each piece again, backward from there.
That is the chain rule, with the memory of one piece and a second forward pass, which is counted. Dropout
is the same both times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from onestage.data.packing import EMPTY, Batch, Piece, Row
from onestage.models.readout import Said
from onestage.objectives import Loss
from onestage.objectives._host import there_of
from onestage.training.forward import losses_of, needs_of, row_loss, weighed

if TYPE_CHECKING:
    from onestage.training.run import Run

NOTHING = Piece(EMPTY, np.arange(0))


def backward(
    run: Run,
    row: Row,
    batch: Batch,
    weights: Mapping[str, float],
    counts: Mapping[str, float],
    *,
    passes: int,
    last: bool,
) -> dict[str, Loss]:
    """Add the gradients of one row; the losses of its terms.

    `passes`: the pieces of the row of this turn that has the most, over all ranks, which wait for each
    other. `last`: whether no other row of the step follows.
    """
    if run.gauges:
        run.gauges.expect(row, batch, passes, needs_of(run, row, batch))
    if passes > 1:
        return _Pieces(run, row, batch, passes).backward(weights, counts, last)
    with run.devices.adding(last=last):
        loss, losses = row_loss(run, row, batch, weights, counts)
        run.accelerator.backward(loss)
    run.masters.gather()
    return losses


def passes_of(rows: Sequence[Row], turn: int, ranks: int) -> int:
    """Over the rows that `ranks` ranks run in their turn of this number (from 0), the most pieces."""
    return max(len(row.pieces) or 1 for row in rows[turn * ranks : (turn + 1) * ranks])


class _Pieces:
    """A row as pieces, with some of nothing behind them where other ranks have more."""

    def __init__(self, run: Run, row: Row, batch: Batch, passes: int) -> None:
        self.run, self.row, self.batch = run, row, batch
        scored = len(row.tree.node_K) if row.records else 0
        whole = Piece(row, np.arange(scored)) if row.records else NOTHING
        pieces = row.pieces or (whole,)
        self.pieces = [*pieces, *[NOTHING] * (passes - len(pieces))]
        self.needs = needs_of(run, row, batch)
        self.states: list[Tensor] = []

    def backward(
        self, weights: Mapping[str, float], counts: Mapping[str, float], last: bool
    ) -> dict[str, Loss]:
        said = self._said()
        losses = losses_of(self.run, self.row, self.batch, said) if self.row.records else {}
        total = weighed(losses, weights, counts, said, through=list(said))
        found = torch.autograd.grad(total, list(said.values()))
        gradients = dict(zip(said, found, strict=True))
        for number, piece in enumerate(self.pieces, 1):
            with self.run.devices.adding(last=last and number == len(self.pieces)):
                again = self._look(piece, self.states[number - 1])
                entry_K = there_of(torch.from_numpy(piece.entry_K), total.device)
                parts = [
                    (value_K[: len(entry_K)] * gradients[name][entry_K]).sum() + 0.0 * value_K.sum()
                    for name, value_K in again.items()
                ]
                self.run.accelerator.backward(torch.stack(parts).sum())
            self.run.masters.gather()
        return losses

    def _said(self) -> Said:
        """What the policy says of the whole row: leaves, whose gradients are asked for."""
        size = sum(len(piece.entry_K) for piece in self.pieces)
        whole: Said = {}
        for piece in self.pieces:
            self.states.append(_dice(self.run))
            with torch.no_grad(), self.run.devices.adding(last=False):
                said = self._look(piece)
            entry_K = there_of(torch.from_numpy(piece.entry_K), self.run.policy.device)
            for name, value_K in said.items():
                into = whole.setdefault(name, value_K.new_zeros(size, dtype=torch.float32))
                into[entry_K] = value_K[: len(entry_K)].float()
        return {name: value_K.requires_grad_() for name, value_K in whole.items()}

    def _look(self, piece: Piece, state: Tensor | None = None) -> Said:
        if state is not None:
            _set_dice(self.run, state)
        with self.run.accelerator.autocast():
            return self.run.devices.look(piece.row, self.needs)


def _dice(run: Run) -> Tensor:
    """The state of what dropout is drawn from."""
    device = run.policy.device
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_dice(run: Run, state: Tensor) -> None:
    device = run.policy.device
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
