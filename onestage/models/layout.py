"""A policy laid out on many devices, whole or in parts: which weights are together, how they get there.

Weights are read once: the main process has them, the others know names and shapes, and each weight is
sent to all, one after the other, of which each keeps its part, or all of it. So a host's memory holds
the model once whatever the number of its ranks, and no other rank needs to read a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor

from onestage.data.packing import EMPTY
from onestage.models.four_bits import cuttable
from onestage.models.policy import Policy
from onestage.models.sharding import Sharded, groups_of, local, part_like

HALF = frozenset({torch.bfloat16, torch.float16})


def shard(
    policy: Policy,
    mesh: DeviceMesh,
    device: torch.device,
    *,
    reshard_after_forward: bool = True,
    cpu_offload: bool = False,
) -> None:
    """Lay a policy out in parts, in place. On the main process all its weights are on the CPU; of the
    others only names and shapes are looked at (they may be on `meta`).

    Raises `ValueError` where trained weights of one layer are held in different precisions.
    """
    cuttable(policy)
    source: dict[str, Tensor] = {}
    if distributed.get_rank() == 0:
        source = {name: tensor.detach() for name, tensor in _tensors(policy)}
    ties = _agree(policy)
    dtype = policy.dtype  # only now that of the main process on all: it alone has read the weights
    policy.to("meta")
    _tie(policy, ties)
    how = Sharded(mesh, device, dtype, reshard_after_forward, cpu_offload)
    heads = [policy.value_head] if policy.value_head is not None else []
    for module in (*layers_of(policy), *heads):
        _group(policy, module, how, reshard_after_forward)
    _group(policy, policy, how, False)  # needed as soon as the backward pass begins
    register_fsdp_forward_method(policy, "look")
    policy.to_empty(device="cpu" if cpu_offload else device)
    _tie(policy, ties)
    _receive(policy, source, how)
    policy.sharded = how
    _first_pass(policy)


@torch.no_grad()
def _first_pass(policy: Policy) -> None:
    """One forward pass of nothing in particular: by the first, torch finds which group is the root."""
    policy.look(EMPTY)
    for module in groups_of(policy):
        module.reshard()


def layers_of(policy: Policy) -> list[nn.Module]:
    """The decoder layers, by transformers' list of what must not be cut; else by their number."""
    base = policy.base
    names = set(getattr(base, "_no_split_modules", None) or ())
    found = [module for module in base.modules() if type(module).__name__ in names]
    count = getattr(base.config, "num_hidden_layers", None)
    lists = (m for m in base.modules() if isinstance(m, nn.ModuleList) and len(m) == count)
    return found or list(next(lists, ()))


def _group(policy: Policy, module: nn.Module, how: Sharded, reshard: bool) -> None:
    """Make the weights of a module, but for those that have a group already, one group."""
    inside = {id(p) for p in module.parameters() if not isinstance(p, DTensor)}
    mine = {name: p for name, p in policy.named_parameters() if id(p) in inside}
    trained = {name: p for name, p in mine.items() if p.requires_grad}
    half = {p.dtype for p in trained.values()} & HALF
    if half and (len(half) > 1 or {p.dtype for p in mine.values()} != half):
        found = sorted(str(dtype) for dtype in {p.dtype for p in mine.values()})
        raise ValueError(
            f"distributed.sharding: weights of one layer ({next(iter(trained))}, ...) are trained in "
            f"half precision beside others in {', '.join(found)}; set model.dtype: float32"
        )
    for name, parameter in trained.items() if half else ():
        how.rounded[name] = parameter.dtype
        parameter.data = parameter.data.float()
    precision = MixedPrecisionPolicy(cast_forward_inputs=False)
    for dtype in half:
        precision = MixedPrecisionPolicy(dtype, torch.float32, cast_forward_inputs=False)
    pinned = how.device.type != "cpu"
    fully_shard(
        module,
        mesh=how.mesh,
        reshard_after_forward=reshard,
        mp_policy=precision,
        offload_policy=CPUOffloadPolicy(pin_memory=pinned) if how.cpu_offload else OffloadPolicy(),
    )
    # Losses are divided by the units of the whole step already: a sum, as on one process.
    made: Any = module
    made.set_gradient_divide_factor(1.0)
    made.set_force_sum_reduction_for_comms(True)


def send_whole(model: nn.Module, device: torch.device) -> bool:
    """Give a model that lies on `meta`, but on the main process, that one's weights, whole, in place.

    Returns whether that could be done; where a process made other parts of the model than the main one
    has (it is quantised, say), nothing is done anywhere, and each must read it by itself.
    """
    main, ties, wrong = distributed.get_rank() == 0, list[list[str]](), ""
    try:
        ties = _agree(model)
        wrong = "" if main else _left_behind(model)
    except (ValueError, AttributeError) as error:
        wrong = str(error)
    told: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(told, wrong)
    if any(told):
        return False
    if not main:
        model.to_empty(device=device)
        _tie(model, ties)
    for _, tensor in _tensors(model):
        whole = tensor.detach().contiguous()
        distributed.broadcast(whole, 0)
        if not main and whole.data_ptr() != tensor.data_ptr():
            tensor.detach().copy_(whole)
    return True


def _left_behind(model: nn.Module) -> str:
    """The name of a tensor that is neither weight nor buffer, and so would stay on `meta`."""
    held = ((name, vars(module).items()) for name, module in model.named_modules())
    found = (f"{name}.{key}" for name, own in held for key, v in own if isinstance(v, Tensor))
    return next(found, "")


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


@torch.no_grad()
def _agree(model: nn.Module) -> list[list[str]]:
    """Give all processes the main one's precisions. Returns names of weights that are one there.

    Raises `ValueError` on a process whose model has other parts.
    """
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    ties = [group for group in names.values() if len(group) > 1]
    table = {name: (tensor.shape, tensor.dtype) for name, tensor in _tensors(model)}
    found: list[Any] = [ties, table]
    distributed.broadcast_object_list(found)
    ties, theirs = found
    _tie(model, ties)
    for name, tensor in _tensors(model):
        shape, dtype = theirs.pop(name, (None, None))
        if shape != tensor.shape:
            raise ValueError(
                f"{name} has the shape {tuple(tensor.shape)}, on the main process {shape}"
            )
        if dtype != tensor.dtype:
            tensor.data = tensor.data.to(dtype)
    if theirs:
        raise ValueError(f"the main process has weights that are not here: {', '.join(theirs)}")
    return list(ties)


def _tie(model: nn.Module, names: list[list[str]]) -> None:
    """Make weights one that were so before a move, which makes each anew."""
    for first, *others in names:
        for other in others:
            owner, _, leaf = other.rpartition(".")
            model.get_submodule(owner)._parameters[leaf] = model.get_parameter(first)


@torch.no_grad()
def _receive(
    policy: Policy, source: dict[str, Tensor], how: Sharded, names: set[str] | None = None
) -> None:
    """Send every weight (or those of some names) from the main process to all, one at a time, of which
    each keeps its part."""
    for name, place in policy.named_parameters():
        if names is None or name in names:
            dtype = how.rounded.get(name, place.dtype) if names is None else place.dtype
            sent = _sent(source.pop(name, None), place.shape, dtype, how)
            local(place).copy_(local(part_like(sent, place)))
    for name, buffer in list(policy.named_buffers()) if names is None else ():
        owner, _, leaf = name.rpartition(".")
        sent = _sent(source.pop(name, None), buffer.shape, buffer.dtype, how)
        policy.get_submodule(owner)._buffers[leaf] = sent


def _sent(tensor: Tensor | None, shape: torch.Size, dtype: torch.dtype, how: Sharded) -> Tensor:
    if tensor is None:
        tensor = torch.empty(shape, dtype=dtype, device=how.device)
    sent = tensor.to(how.device, dtype).contiguous()
    distributed.broadcast(sent, 0)
    return sent


def receive(policy: Policy, weights: dict[str, Tensor]) -> None:
    """Lay out weights that the main process alone needs to know, by name; others stay."""
    assert policy.sharded is not None
    names: list[Any] = [list(weights)]
    distributed.broadcast_object_list(names)
    _receive(policy, weights, policy.sharded, set(names[0]))
