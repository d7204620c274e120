"""A policy in parts on many devices: torch's FSDP2, with the policy itself as the root.

Each decoder layer is a group of weights, put together for its forward and its backward pass; embeddings,
the last norm and the head are the root's. The root is the policy, not the transformers model inside,
because what we call is the policy's `look`: it reads the head's weight itself, in chunks of the
vocabulary, and the root's weights are together from its beginning to the end of the backward pass, so
the head is sent once a row and not once a chunk. (accelerate's `prepare` wraps a transformers model and
its `forward`, which is never called here; so torch is asked directly.)

All ranks must enter the contexts below together, and run as many forward passes in them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from onestage.data.packing import EMPTY, Row
from onestage.models.stacking import stacked_weights

if TYPE_CHECKING:
    from onestage.models.policy import Policy


@dataclass(frozen=True)
class Sharded:
    """How a policy lies on its devices."""

    mesh: DeviceMesh
    """One axis: parts over all. Two: copies, and parts of each."""
    device: torch.device
    """Where it computes."""
    dtype: torch.dtype
    """What it computes in."""
    reshard_after_forward: bool = True
    cpu_offload: bool = False
    rounded: dict[str, torch.dtype] = field(default_factory=dict)
    """The weights that are held in float32 and computed with in less, by name: torch rounds them when
    it puts them together, so the parts are their own masters (see `masters`)."""


def in_step(policy: Policy, rows: Sequence[Row]) -> list[Row]:
    """Rows that other ranks do not know, and empty ones behind them, as many as on every rank."""
    return [*rows, *[EMPTY] * more_passes(policy, len(rows))]


def more_passes(policy: Policy, mine: int) -> int:
    """How many more forward passes than this rank some other one has to run."""
    if policy.sharded is None or policy.together:
        return 0
    most = torch.tensor(mine, device=policy.device)
    distributed.all_reduce(most, distributed.ReduceOp.MAX)
    return int(most) - mine


@contextmanager
def opened(policy: Policy) -> Iterator[None]:
    """The weights outside the layers put together, so that they can be read and parts of the model be
    run by themselves; those of a layer come for its forward pass as ever."""
    mine = [policy] if policy.sharded and _apart(policy) else []
    with _together(mine):
        yield
    # Layers that are kept after a forward pass would be old ones after the next step.
    for module in groups_of(policy) if mine else ():
        module.reshard()


@contextmanager
def whole(policy: Policy) -> Iterator[None]:
    """All weights put together, for who runs the model token by token or reads all of it; nothing is
    sent inside, so ranks need not keep step."""
    how = policy.sharded
    if how is None:
        yield
        return
    parts: Any = policy
    parts.set_reshard_after_forward(False)
    before, policy.together = policy.together, True
    try:
        with _together(groups_of(policy)):
            yield
    finally:
        policy.together = before
        parts.set_reshard_after_forward(how.reshard_after_forward)
        parts.set_reshard_after_forward(False, recurse=False)


@contextmanager
def _together(modules: list[Any]) -> Iterator[None]:
    mine = [module for module in modules if _apart(module)]
    for module in mine:
        module.unshard()
    try:
        yield
    finally:
        for module in mine:
            module.reshard()


def _apart(module: Any) -> bool:
    """Whether a group's weights are in parts now."""
    groups = module._get_fsdp_state()._fsdp_param_groups
    return any(not group.is_unsharded for group in groups)


def groups_of(module: nn.Module) -> list[Any]:
    return [one for one in module.modules() if isinstance(one, FSDPModule)]


@contextmanager
def copyable(module: nn.Module) -> Iterator[None]:
    """Inside, a module whose layers lie in parts can be copied (`deepcopy`): the copy is plain."""
    groups = groups_of(module)
    kinds: dict[Any, Any] = {type(one): vars(type(one))["__deepcopy__"] for one in groups}
    for kind in kinds:
        kind.__deepcopy__ = _plain_copy
    try:
        with _together(groups):
            yield
    finally:
        for kind, before in kinds.items():
            kind.__deepcopy__ = before


def _plain_copy(module: Any, memo: dict[int, Any]) -> Any:
    """A copy of a module's weights and settings, without what torch hung on it to shard it."""
    kind: Any = type(module).__mro__[2]  # as FSDPModule itself finds it
    made = kind.__new__(kind)
    memo[id(module)] = made
    for name, value in vars(module).items():
        if name.endswith("_hooks"):
            made.__dict__[name] = type(value)()
        elif not name.startswith("__composable_api"):
            made.__dict__[name] = copy.deepcopy(value, memo)
    return made


def gathered(policy: Policy) -> dict[str, Tensor] | None:
    """The weights of a policy that lies in parts, whole, in the precision it computes in, by the names
    of its model's own state dict; on the main process alone. Of adapters only what is trained, and what
    lies under that (`stacking`). None where the model has its weights itself."""
    how = policy.sharded
    if how is None:
        return None
    adapted = hasattr(policy.model, "peft_config")
    wanted = {name for name, p in policy.model.named_parameters() if p.requires_grad}
    wanted |= set(stacked_weights(policy.model))
    main, found = distributed.get_rank() == 0, dict[str, Tensor]()
    of: dict[int, Tensor] = {}  # tied weights stay one
    for name, tensor in policy.model.state_dict().items():
        if adapted and name not in wanted:
            continue
        place = local(tensor).data_ptr()
        if place not in of or not isinstance(tensor, DTensor):
            dtype = how.rounded.get(f"model.{name}", tensor.dtype)
            of[place] = full(tensor.detach()).to("cpu" if main else None, dtype)
        if main:
            found[name] = of[place]
        else:
            of[place] = torch.empty(0)
    return found


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor, or all of it where it lies in none."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def full(tensor: Tensor) -> Tensor:
    """A tensor that may lie in parts, whole on every rank."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part_like(whole: Tensor, place: Tensor) -> Tensor:
    """Of a tensor that every rank has whole, what lies as `place` does."""
    if not isinstance(place, DTensor):
        return whole
    return distribute_tensor(whole, place.device_mesh, place.placements, src_data_rank=None)
