"""What a run would take on GPUs that are not here: which sharding fits, tokens a second, hours, cost.

Arithmetic on a model's footprint (`models.footprint`) and on data sheets (`gpus.yaml`). Memory is
counted from what the run will hold; what is assumed stands here, and is said with every estimate:

- a GPU does `USED` of its data sheet's operations a second. Transfers between GPUs go on meanwhile, and
  a row takes as long as the longer of the two;
- operations of a token: 2 a weight forward, 2 for the gradient of what enters it, 2 for its own where it
  is trained, 2 again where activations are made anew (Kaplan et al. 2020, arXiv 2001.08361, section
  2.1; Chowdhery et al. 2022, arXiv 2204.02311, appendix B); attention by half of the longest path;
- every rank has as much to do as the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from onestage.config import nearest
from onestage.models.footprint import Footprint
from onestage.models.head import CHUNK_ELEMENTS
from onestage.training.distributed import Sharding

FILE = Path(__file__).with_name("gpus.yaml")
USED = (0.30, 0.45)
"""Part of a GPU's operations that is of use, low and high."""
BETWEEN = 25.0
"""GB/s a GPU to other nodes, one way: 200 Gb/s each."""
LIBRARIES = 2e9
"""Bytes of CUDA's and the libraries' own."""
SPARE = 0.05
"""Part of the memory that is lost to fragments."""
STATES = {"adamw": 8, "adam": 8, "lion": 4, "rmsprop": 4, "adagrad": 4, "sgd": 0, "adafactor": 0}
"""Bytes that an optimiser keeps of a weight, by how its name begins; the longer name first."""
LOGIT = 8
"""Bytes of a logit of a chunk: the product and its gradient in half precision, and float32 between."""


@dataclass(frozen=True)
class Gpu:
    """One line of `gpus.yaml`, where its units stand."""

    name: str
    memory: float
    tflops: float
    bandwidth: float
    link: float


@dataclass(frozen=True)
class Machines:
    """What would be rented."""

    gpu: Gpu
    gpus: int
    node: int = 8
    """GPUs of a node, where there are so many."""
    price: float | None = None
    """Of a GPU for an hour."""

    @property
    def together(self) -> int:
        """GPUs of a node that is full, or of the one that there is."""
        return min(self.node, self.gpus)


@dataclass(frozen=True)
class Work:
    """What a recipe asks for."""

    row: int
    """Tokens in one forward pass."""
    path: int
    """Tokens of the longest path."""
    tokens: int | None = None
    """That are trained on in all."""
    optimizer: str = "adamw"
    autocast: bool = False
    """Whether weights in float32 are computed with in bfloat16."""
    sampled: int = 0
    """Tokens of answers that a GPU holds while it samples."""
    reference: bool = False
    """Whether each token is seen once by a reference too."""
    whole: bool = False
    """Whether weights cannot lie in parts, as with an optimiser that reads whole matrices."""


@dataclass(frozen=True)
class Fit:
    """One way to do it."""

    sharding: Sharding
    checkpointing: bool
    """Of activations."""
    bytes: Mapping[str, float]
    """On one GPU, by what they are."""
    room: float
    """Bytes that a GPU has."""
    speed: tuple[float, float]
    """Tokens a second of all GPUs, low and high."""
    bound: str
    """What holds it up at the high end: `compute` or `transfers`."""
    hours: tuple[float, float] | None
    """High and low; None where the number of tokens is not known."""
    cost: tuple[float, float] | None

    @property
    def needed(self) -> float:
        """Bytes on one GPU."""
        return sum(self.bytes.values())

    @property
    def fits(self) -> bool:
        return self.needed <= self.room


@dataclass(frozen=True)
class Scaled:
    """A run, and the machines that it might have."""

    model: Footprint
    work: Work
    machines: Machines
    asked: tuple[Sharding, bool] = ("none", False)
    """The recipe's own sharding, and whether it has activation checkpointing."""

    def ways(self) -> list[Fit]:
        """All ways to do it, whether they fit or not."""
        return fits(self.model, self.work, self.machines)

    def enough(self) -> int | None:
        """The least power of two of such GPUs on which it fits; None where not even 1024 do."""
        for number in (2**power for power in range(11)):
            if best(fits(self.model, self.work, replace(self.machines, gpus=number))):
                return number
        return None


@cache
def gpus() -> dict[str, Gpu]:
    """All GPUs that there are data sheets of, by name."""
    return {name: Gpu(name, **line) for name, line in yaml.safe_load(FILE.read_text()).items()}


def gpu(name: str) -> Gpu:
    """One by its name; `ValueError` where there is none."""
    known = gpus()
    if name not in known:
        raise ValueError(
            f"--gpu: unknown GPU {name!r}{nearest(name, known)}; there are {', '.join(known)}"
        )
    return known[name]


def fits(model: Footprint, work: Work, machines: Machines) -> list[Fit]:
    """All ways to do it, whether they fit or not."""
    nodes = machines.gpus > machines.node
    ways: tuple[Sharding, ...] = ("none", "hybrid", "full") if nodes else ("none", "full")
    if machines.gpus == 1 or work.whole:
        ways = ("none",)
    return [
        _fit(model, work, machines, way, checkpointing)
        for way in ways
        for checkpointing in (False, True)
    ]


def best(found: list[Fit]) -> Fit | None:
    """The fastest that fits; of equals the one that is the least trouble."""
    good = [fit for fit in found if fit.fits]
    return max(good, key=lambda fit: fit.speed[1], default=None)


def held(model: Footprint, optimizer: str = "adamw") -> dict[str, float]:
    """Bytes that a run keeps of its parameters from step to step, all in all."""
    trained = model.trained
    own = trained * 4.0 if model.adapters else 0.0
    return {
        "weights": model.parameters * model.weight_bytes + own,
        "masters": float(trained * model.master_bytes),
        "gradients": float(trained * model.gradient_bytes),
        "optimiser": float(trained * state_bytes(optimizer)),
    }


def state_bytes(optimizer: str) -> int:
    """Bytes that an optimiser keeps of a weight; those of AdamW where it is unknown."""
    if "8bit" in optimizer:
        return 2
    return next((size for name, size in STATES.items() if optimizer.startswith(name)), 8)


def _fit(
    model: Footprint, work: Work, machines: Machines, way: Sharding, checkpointing: bool
) -> Fit:
    parts = _memory(model, work, _shards(machines, way), checkpointing)
    moved = _transfers(model, machines, way)
    done = _operations(model, work, checkpointing) * work.row / (machines.gpu.tflops * 1e12)
    rows = [max(done / used, moved) for used in USED]
    low, high = (machines.gpus * work.row / seconds for seconds in rows)
    hours = (work.tokens / low / 3600, work.tokens / high / 3600) if work.tokens else None
    rate = machines.gpus * machines.price if machines.price is not None else None
    return Fit(
        sharding=way,
        checkpointing=checkpointing,
        bytes=parts,
        room=machines.gpu.memory * 1e9 * (1 - SPARE) - LIBRARIES,
        speed=(low, high),
        bound="transfers" if moved > done / USED[1] else "compute",
        hours=hours,
        cost=(hours[0] * rate, hours[1] * rate) if hours and rate is not None else None,
    )


def _shards(machines: Machines, way: Sharding) -> int:
    """GPUs that the weights are shared out over."""
    return {"none": 1, "hybrid": machines.together, "full": machines.gpus}[way]


def _memory(model: Footprint, work: Work, shards: int, checkpointing: bool) -> dict[str, float]:
    kept = work.row * model.kept
    if checkpointing:  # what enters each layer, and one layer that is made again
        kept = work.row * model.layers * model.entering + kept / model.layers
    parts = {name: size / shards for name, size in held(model, work.optimizer).items()}
    if shards > 1 and model.master_bytes:  # parts are float32, and so their own masters
        parts |= {"weights": 4.0 * model.parameters / shards, "masters": 0.0}
        parts["gradients"] = 4.0 * model.trained / shards
    parts |= {"activations": kept, "logits": float(LOGIT * CHUNK_ELEMENTS["cuda"])}
    if shards > 1:
        # Two layers, one in use and one on its way, and what is around them, with gradients.
        whole = model.parameters - model.layers * model.layer + 2 * model.layer
        each = 2 if work.autocast else model.weight_bytes
        parts["together"] = whole * each * (1 if model.adapters else 2)
    elif work.autocast and model.weight_bytes == 4:
        parts["copies in bfloat16"] = 2.0 * model.parameters
    if work.sampled:
        parts["keys and values"] = float(work.sampled * model.cached)
    return parts


def _operations(model: Footprint, work: Work, checkpointing: bool) -> float:
    """Of a token that is trained on."""
    attention = 2.0 * model.attended * work.path / 2  # forward; the backward pass takes 2.5 of it
    layers = 2.0 * model.multiplied
    made = layers * (2 if model.adapters else 3) + 3.5 * attention
    if model.adapters:
        made += 6.0 * model.trained
    if checkpointing:
        made += layers + attention
    # Of a head that is trained the logits are made twice (`models.head`); with adapters it is not.
    head = 2.0 * model.head * (2 if model.adapters else 4)
    asked = layers + attention + 2.0 * model.head if work.reference else 0.0
    return made + head + asked


def _transfers(model: Footprint, machines: Machines, way: Sharding) -> float:
    """Seconds that a row's transfers take of one GPU."""
    n, near = machines.gpus, machines.gpu.link * 1e9
    far = min(near, BETWEEN * 1e9)
    gradients = 4.0 * model.trained
    if n == 1:
        return 0.0
    across = far if n > machines.node else near
    if way == "none":  # an all-reduce sends everything twice
        return 2 * gradients * _others(n) / across
    weights = 2 * model.parameters * model.weight_bytes  # gathered forward, and backward again
    if way == "full":
        return (weights + gradients) * _others(n) / across
    within = machines.together
    nodes = math.ceil(n / within)
    inside = (weights + gradients) * _others(within) / near
    return inside + 2 * gradients / within * _others(nodes) / far


def _others(count: int) -> float:
    """The part of something shared out over so many that the others have."""
    return (count - 1) / count


def parts_of(fit: Fit) -> Iterator[tuple[str, float]]:
    """What takes memory, the largest first."""
    named: Any = fit.bytes.items()
    yield from sorted((one for one in named if one[1]), key=lambda one: -one[1])
