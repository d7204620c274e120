"""The tensors of a checkpoint whose run lies in parts: each rank writes its own, any ranks read them.

torch's distributed checkpoints know which part of which tensor lies in which file, so a run goes on with
another number of ranks, with other parts, or on one process. In `state/` of a checkpoint lie the trained
weights (in float32, where they are computed with in less: they are their own masters), the optimiser's
state and the average; `training.pt` beside it holds what is no tensor, `model/` the plain model.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from onestage.models.sharding import part_like
from onestage.runfolder.disk import DiskFullError, no_room

if TYPE_CHECKING:
    from onestage.training.run import Run

FOLDER = "state"
WEIGHTS, OPTIMIZER, AVERAGE = "weights", "optimizer", "average"


def write(run: Run, draft: Path | None) -> Callable[[], None]:
    """Write this rank's parts into the draft of a checkpoint, which the main process alone knows.

    Returns what waits until those of all ranks are there: with `train.async_save` they are written
    while the run goes on. Raises, at once or there, `DiskFullError` where this rank has no room, and
    `OSError` where another could not write.
    """
    found: list[Any] = [draft]
    distributed.broadcast_object_list(found)
    tensors, folder = _tensors(run), found[0] / FOLDER
    if run.options.async_save:
        group = run.saving.group
        written: Any = dcp.async_save(tensors, checkpoint_id=folder, process_group=group)
        return partial(_told, written.result)
    _told(lambda: dcp.save(tensors, checkpoint_id=folder))
    return lambda: None


def read(run: Run, checkpoint: Path) -> dict[str, Any]:
    """The tensors of a checkpoint as this run's lie: `weights` and `average` by name, and `optimizer`,
    the state of each parameter by its number."""
    folder = checkpoint / FOLDER
    known = dcp.FileSystemReader(folder).read_metadata().state_dict_metadata
    places = _places(run)
    tensors = {key: _room(key, facts, places) for key, facts in known.items()}
    with warnings.catch_warnings():  # one process is told that it is one
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        dcp.load(tensors, checkpoint_id=folder, no_dist=not distributed.is_initialized())
    found: dict[str, Any] = {WEIGHTS: {}, OPTIMIZER: {}, AVERAGE: {}}
    for key, tensor in tensors.items():
        section, _, rest = key.partition("/")
        if section == OPTIMIZER:
            number, _, name = rest.partition("/")
            found[section].setdefault(int(number), {})[name] = tensor
        else:
            found[section][rest] = tensor
    return found


def laid_out(run: Run, state: Mapping[int, Mapping[str, Any]]) -> dict[int, dict[str, Any]]:
    """The optimiser's state of a run on one process, as this run's parameters lie."""
    places = _numbered(run)
    return {
        number: {
            name: part_like(value, places[number]) if _same(value, places[number]) else value
            for name, value in values.items()
        }
        for number, values in state.items()
    }


def _tensors(run: Run) -> dict[str, Tensor]:
    found = {f"{WEIGHTS}/{name}": p.detach() for name, p in _trained(run).items()}
    for number, values in run.optimizer.state_dict()["state"].items():
        found |= {f"{OPTIMIZER}/{number}/{name}": value for name, value in values.items()}
    if run.average:
        found |= {f"{AVERAGE}/{name}": value for name, value in run.average.mean.items()}
    return found


def _trained(run: Run) -> dict[str, Tensor]:
    return {name: p for name, p in run.policy.named_parameters() if p.requires_grad}


def _numbered(run: Run) -> list[Tensor]:
    """What the optimiser steps, in the order in which it numbers it."""
    return [parameter for group in run.optimizer.param_groups for parameter in group["params"]]


def _places(run: Run) -> dict[str, Tensor]:
    """What the tensors of a checkpoint are laid out like, by the beginning of their keys."""
    trained = _trained(run)
    found = {
        f"{section}/{name}": p for name, p in trained.items() for section in (WEIGHTS, AVERAGE)
    }
    return found | {f"{OPTIMIZER}/{n}": p for n, p in enumerate(_numbered(run))}


def _room(key: str, facts: Any, places: Mapping[str, Tensor]) -> Tensor:
    """An empty tensor for what a key has."""
    place = places.get(key, places.get(key.rpartition("/")[0]))
    assert isinstance(facts, TensorStorageMetadata)
    dtype = facts.properties.dtype
    if place is None:
        raise ValueError(f"its {key} is of a weight that this run does not train")
    if place.shape == facts.size:
        return torch.empty_like(place, dtype=dtype, requires_grad=False)
    return torch.empty(facts.size, dtype=dtype)


def _same(value: Any, place: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == place.shape


def _told(write: Callable[[], object]) -> None:
    """Write, and raise what goes wrong on a rank in a line; its own words on that rank."""
    try:
        write()
    except CheckpointException as error:
        mine = distributed.get_rank()
        rank, (cause, _) = min(error.failures.items(), key=lambda item: item[0] != mine)
        reason = no_room(cause)
        where = f"the checkpoint's part of rank {rank}"
        told = f"{where} was not written: {cause}"
        raise (DiskFullError(where, reason) if reason else OSError(told)) from error
