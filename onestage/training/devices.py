"""How a run's weights and gradients lie on its devices: on one, or whole on each of many.

The loop gives every rank equally many rows (`data.deal`), and each row's loss is divided by the units of
the whole step already. So gradients are added over ranks, not averaged, and once a step: with those of
a rank's last row, while that still goes backward.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, distributed, nn
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from onestage.data.deal import deal
from onestage.data.packing import Row
from onestage.models.masters import Masters
from onestage.models.policy import Policy
from onestage.models.readout import Said


class Devices(ABC):
    """Where a policy is trained. `rank`, `ranks`: which process this is, of how many."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.rank, self.ranks = accelerator.process_index, accelerator.num_processes
        self.device = accelerator.device

    @abstractmethod
    def look(self, row: Row, reads: Collection[str]) -> Said:
        """What the policy says of a row (`Policy.look`), for who goes backward through it."""

    @abstractmethod
    def adding(self, *, last: bool) -> AbstractContextManager[Any]:
        """What surrounds the forward and the backward pass of a row. `last`: of this rank's rows in the
        step; after it, the gradients are those of all ranks."""

    def deal(self, rows: Sequence[Row]) -> list[Row]:
        """Of rows that every rank knows, this one's: as many as every other's."""
        return deal(rows, self.rank, self.ranks)

    def add(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all ranks."""
        if self.ranks > 1:
            tensor = tensor.to(self.device)  # a card's own messages know no other memory
            distributed.all_reduce(tensor)
        return tensor

    def gather(self, items: list[Any]) -> list[Any]:
        """The items of all ranks, in the order of ranks."""
        return gather_object(items) if self.ranks > 1 else items


class Alone(Devices):
    """One process."""

    def __init__(self, accelerator: Accelerator, policy: Policy) -> None:
        super().__init__(accelerator)
        self.policy = policy

    def look(self, row: Row, reads: Collection[str]) -> Said:
        return self.policy.look(row, reads)

    def adding(self, *, last: bool) -> AbstractContextManager[Any]:
        return nullcontext()


class Replicated(Devices):
    """Weights whole on every rank (torch's `DistributedDataParallel`)."""

    def __init__(self, accelerator: Accelerator, policy: Policy, masters: Masters) -> None:
        super().__init__(accelerator)
        # A value head has no gradient in steps that do not ask it. Where every weight has one, torch
        # says at length that it looked for others in vain.
        warnings.filterwarnings("ignore", "find_unused_parameters=True was specified")
        self.module = DistributedDataParallel(
            _Looking(policy), broadcast_buffers=False, find_unused_parameters=True
        )
        # torch looks at a hook's annotations, and knows its own classes but not their names.
        self.module.register_comm_hook(masters, lambda known, bucket: _added(known, bucket))

    def look(self, row: Row, reads: Collection[str]) -> Said:
        said: Said = self.module(row, reads)
        return said

    def adding(self, *, last: bool) -> AbstractContextManager[Any]:
        return nullcontext() if last else self.module.no_sync()


class _Looking(nn.Module):
    """A policy whose forward pass is `look`: torch's hooks hang on that."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, row: Row, reads: Collection[str]) -> Said:
        return self.policy.look(row, reads)


def _added(masters: Masters, bucket: distributed.GradBucket) -> Future[Tensor]:
    """Some gradients, added over ranks. Those of weights that have masters are added in float32, to what
    the rank's earlier rows left there; on the weights themselves nothing is left."""
    buffer, weights = bucket.buffer(), bucket.parameters()
    stepped = masters.of(weights)
    if all(master is weight for master, weight in zip(stepped, weights, strict=True)):
        return _sum(buffer).then(lambda done: done.value()[0])
    parts = [
        gradient.float() if master.grad is None else master.grad + gradient
        for master, gradient in zip(stepped, bucket.gradients(), strict=True)
    ]
    flat = torch.cat([part.flatten() for part in parts])

    def settle(done: Future[list[Tensor]]) -> Tensor:
        for master, part in zip(stepped, flat.split([m.numel() for m in stepped]), strict=True):
            master.grad = part.view_as(master)
        return buffer.zero_()

    return _sum(flat).then(settle)


def _sum(tensor: Tensor) -> Future[list[Tensor]]:
    return distributed.all_reduce(tensor, async_op=True).get_future()


def devices_of(accelerator: Accelerator, policy: Policy, masters: Masters) -> Devices:
    """Where a run trains its policy."""
    if accelerator.num_processes > 1:
        return Replicated(accelerator, policy, masters)
    return Alone(accelerator, policy)
