"""How a run's weights and gradients lie on its devices: on one, whole on each of many, or in parts.

The loop gives every rank equally many rows (`data.deal`), and each row's loss is divided by the units of
the whole step already. So gradients are added over ranks, not averaged, and once a step: with those of
a rank's last row, while that still goes backward.
"""

from __future__ import annotations

import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from onestage.config import RecipeError
from onestage.data.deal import deal
from onestage.data.encoded import Encoded
from onestage.data.packing import Batch, Row, pack_records
from onestage.models import Loaded
from onestage.models.layout import shard
from onestage.models.masters import Masters
from onestage.models.policy import Policy
from onestage.models.probe import UNTRIED, probe
from onestage.models.readout import Said
from onestage.models.sharding import full
from onestage.training.distributed import Distributed, of_launcher
from onestage.training.terms import Terms, numbers_of

LOCAL = "LOCAL_WORLD_SIZE"


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

    def pack(
        self, records: Sequence[Encoded], tokens_per_row: int, longest: int | None = None
    ) -> Batch:
        """Records in rows that are arranged for these ranks (see `data.packing.pack`); all must ask of
        the same records."""
        return pack_records(records, tokens_per_row, ranks=self.ranks, longest=longest)

    def deal(self, rows: Sequence[Row]) -> list[Row]:
        """Of rows that were packed for these ranks, this one's: as many as every other's."""
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
        # A value head has no gradient in steps that do not ask it, an expert none where no token goes.
        names = (name for name, p in policy.named_parameters() if p.requires_grad)
        idle = policy.value_head is not None or any("expert" in name for name in names)
        with warnings.catch_warnings(category=FutureWarning, action="ignore"):  # torch renames it
            self.module = DistributedDataParallel(
                _Looking(policy), broadcast_buffers=False, find_unused_parameters=idle
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


class InParts(Devices):
    """Weights, gradients and the optimiser's state in parts (torch's FSDP2, see `models.sharding`)."""

    def __init__(self, accelerator: Accelerator, policy: Policy, copies: bool) -> None:
        """`copies`: whether there are several of each part."""
        super().__init__(accelerator)
        self.policy: Any = policy
        self.copies = copies

    def look(self, row: Row, reads: Collection[str]) -> Said:
        said: Said = self.policy.look(row, reads)
        return said

    def adding(self, *, last: bool) -> AbstractContextManager[Any]:
        # Gradients are cut into parts after each row: whole ones would be as large as the model.
        if self.copies:
            self.policy.set_requires_all_reduce(last)
        return nullcontext()


def devices_of(accelerator: Accelerator, policy: Policy, masters: Masters) -> Devices:
    """Where a run trains its policy."""
    if policy.sharded is not None:
        return InParts(accelerator, policy, copies=policy.sharded.mesh.ndim > 1)
    if accelerator.num_processes > 1:
        return Replicated(accelerator, policy, masters)
    return Alone(accelerator, policy)


def require_ranks(section: Distributed, ranks: int) -> None:
    """Raise `RecipeError` where so many processes cannot be arranged as the section says."""
    if section.sharding != "none" and not distributed.is_initialized():
        raise RecipeError(
            f"distributed.sharding: {section.sharding} needs processes to lay parts on, and this is one "
            "alone; start it with torchrun or accelerate launch, or leave sharding out"
        )
    local = _local(ranks)
    if section.sharding == "hybrid" and ranks % local:
        raise RecipeError(
            f"distributed.sharding: hybrid needs as many processes on each node, and {ranks} are no "
            f"multiple of the {local} on this one; start as many on each, or take sharding: full"
        )


def arranged(section: Distributed, environment: Mapping[str, str]) -> dict[str, str]:
    """How ranks are to lie, by what each was told of it: their launchers and nodes may differ."""
    found = of_launcher(section, environment)
    how = {f"distributed.{name}": str(value) for name, value in found.model_dump().items()}
    if found.sharding == "hybrid":
        how["number of ranks on its node (LOCAL_WORLD_SIZE)"] = environment.get(LOCAL, "")
    return how


def _local(ranks: int) -> int:
    """Processes on this node."""
    return int(os.environ.get(LOCAL) or ranks)


def mesh_of(section: Distributed, accelerator: Accelerator) -> DeviceMesh | None:
    """The devices in the order in which parts lie on them; None where weights are whole on each.

    Raises `RecipeError` where processes cannot be arranged so.
    """
    ranks = accelerator.num_processes
    require_ranks(section, ranks)
    if section.sharding == "none":
        return None
    if section.sharding == "full":
        return init_device_mesh(accelerator.device.type, (ranks,))
    local = _local(ranks)
    return init_device_mesh(
        accelerator.device.type, (ranks // local, local), mesh_dim_names=("copies", "parts")
    )


def policy_of(
    loaded: Loaded, section: Distributed, accelerator: Accelerator, terms: Terms | None = None
) -> Policy:
    """The policy of a loaded model, laid out on the devices there are, and made ready for what the terms
    that are trained ask of it."""
    mesh = mesh_of(section, accelerator)
    if mesh is None:
        return _ready(Policy(loaded.model, loaded.tokenizer), terms)
    pad_to = 128 if accelerator.device.type == "cuda" else 1
    policy = _ready(Policy(loaded.model, loaded.tokenizer, fit=UNTRIED, pad_to=pad_to), terms)
    how = section.model_dump(include={"reshard_after_forward", "cpu_offload"})
    shard(policy, mesh, accelerator.device, **how)
    policy.run_as(probe(policy))
    return policy


def _ready(policy: Policy, terms: Terms | None) -> Policy:
    if terms is not None:
        policy.ask_with(numbers_of(terms))
        if "value" in terms.needs:
            policy.add_value_head()
    return policy


def total_norm(tensors: Iterable[Tensor | None]) -> Tensor:
    """The Euclidean norm of some tensors together, which may lie in parts; of none 0."""
    there = [tensor for tensor in tensors if tensor is not None]
    return full(torch.nn.utils.get_total_norm(there))


def norm_of(tensors: Iterable[Tensor | None]) -> float:
    """The same, as a number."""
    return total_norm(tensors).item()
