"""Which head is computed with: the ways of `head_ways` tried on the device and at the run's own size.

Forward and backward of a weighted sum of log-probabilities, a factor for each token, on states of the
model's own, with the gradients that the run asks for. A way is taken that is clearly faster than ours,
whose values and gradients are ours, and that needs no more memory. Everything else is told.

Legend: K scored positions, H hidden size, V vocabulary.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from onestage.models.head import Shape, as_computed, shape_of
from onestage.models.head_law import factors, said
from onestage.models.head_ways import OURS, cannot, installed, logps_by
from onestage.models.model import HEADS
from onestage.models.probe import trial_paths
from onestage.models.yardstick import TOLERANCE, largest
from onestage.stats import at_most

if TYPE_CHECKING:
    from onestage.models.policy import Policy

REPEATS = 3
"""Timed passes of each way, behind one that is not."""
CLEARLY = 0.9
"""Part of our time that another way may take at most: nearer ones would change places by chance."""
AS_MUCH = 1.01
"""Part of our memory that it may take at most; allocators round."""
WORTH = 60.0
"""Seconds that a run must spend in our head, for others to be tried: to import one takes up to ten."""
GRADIENTS = {torch.float32: 1e-4, torch.bfloat16: 0.02, torch.float16: 0.005}
"""Distance of a gradient from ours, in parts of its norm, that is rounding."""


@dataclass(frozen=True, slots=True)
class Tried:
    """What a way took, or why it cannot be taken."""

    seconds: float = math.inf
    bytes: int = 0
    """Device memory beyond what was held before."""
    trouble: str = ""


Clock = Callable[[Callable[[], None]], tuple[float, int]]
"""Does some work, and returns its seconds and the bytes it needed."""


@dataclass(frozen=True, slots=True)
class _Sample:
    """A model's head, and what it is tried on."""

    hidden_KH: Tensor
    weight_VH: Tensor
    bias_V: Tensor | None
    target_K: Tensor
    factor_K: Tensor
    shape: Shape

    @property
    def dtype(self) -> torch.dtype:
        """What is computed in: autocast's where that is on."""
        return as_computed(self.hidden_KH[:1], self.weight_VH[:1])[0].dtype

    def passes(self, name: str) -> tuple[Tensor, list[Tensor]]:
        """Log-probabilities by a way, and the gradients that a run asks for."""
        given = (name, self.hidden_KH, self.weight_VH, self.target_K)
        logp_K = logps_by(*given, bias_V=self.bias_V, shape=self.shape)
        leaves = [self.hidden_KH, self.weight_VH, self.bias_V]
        asked = [leaf for leaf in leaves if leaf is not None and leaf.requires_grad]
        return logp_K.detach(), [*torch.autograd.grad((logp_K * self.factor_K).sum(), asked)]


def try_ways(
    policy: Policy, positions: int, passes: float, clock: Clock | None = None
) -> dict[str, Tried]:
    """What each way took on this process's device, by its name; of ours alone where the run is too short
    for another to be worth its start.

    positions: scored ones of the run's rows; passes: rows that the run will see. Weights are read and
    not touched; weights in parts cannot be tried.
    """
    sample = _sample(policy, positions)
    clock = clock or _on_cuda
    found = {OURS: _tried(OURS, sample, None, clock)}
    if found[OURS].trouble or found[OURS].seconds * passes < WORTH:
        return found
    right = sample.passes(OURS)
    for name in HEADS[1:]:
        trouble = cannot(name, policy.device.type, sample.shape, sample.dtype)
        found[name] = Tried(trouble=trouble) if trouble else _tried(name, sample, right, clock)
    return found


def chosen(of_ranks: Sequence[Mapping[str, Tried]]) -> tuple[str, str]:
    """The way that all ranks take, and what is said of the choice; by the slowest and fullest rank."""
    worst = {name: _worst([one[name] for one in of_ranks]) for name in of_ranks[0]}
    ours = worst[OURS]
    told, able = [], {}
    for name, one in worst.items():
        trouble = one.trouble
        if not trouble and one.bytes > AS_MUCH * ours.bytes:
            trouble = f"needs {_gib(one)} where ours needs {_gib(ours)}"
        told.append(f"{name}: {trouble or f'{1e3 * one.seconds:.3g} ms, {_gib(one)}'}")
        if not trouble and name != OURS and one.seconds <= CLEARLY * ours.seconds:
            able[name] = one.seconds
    if len(worst) == 1 and not ours.trouble:
        told.append("too short a run for others to be tried")
    return min(able, key=able.__getitem__, default=OURS), "; ".join(told)


def named(name: str) -> str:
    """A way with its library's version, for manifests."""
    return name if name == OURS else f"{name} {installed(name)}"


def _worst(tried: Sequence[Tried]) -> Tried:
    trouble = next((one.trouble for one in tried if one.trouble), "")
    return Tried(max(one.seconds for one in tried), max(one.bytes for one in tried), trouble)


def _gib(tried: Tried) -> str:
    return f"{tried.bytes / 2**30:.3g} GiB"


def _sample(policy: Policy, positions: int) -> _Sample:
    head = policy.base.get_output_embeddings()
    bias = getattr(head, "bias", None)
    states, targets = zip(*(said(policy.base, p)[:2] for p in trial_paths(policy)), strict=True)
    hidden_KH, target_K = torch.cat(states).detach(), torch.cat(targets)
    place_K = torch.arange(positions, device=target_K.device) % len(target_K)
    return _Sample(
        hidden_KH[place_K].requires_grad_(),
        _leaf(head.weight),
        None if bias is None else _leaf(bias),
        target_K[place_K],
        factors(positions, target_K.device),
        shape_of(policy.base.config),
    )


def _leaf(weight: Tensor) -> Tensor:
    """The same numbers in the same memory, whose gradients go elsewhere."""
    return weight.detach().requires_grad_(weight.requires_grad)


def _tried(
    name: str, sample: _Sample, right: tuple[Tensor, list[Tensor]] | None, clock: Clock
) -> Tried:
    """right: what ours says, for others."""
    try:
        mine = sample.passes(name)  # compiles what is compiled
        apart = _apart(mine, right, sample.dtype) if right else ""
        del mine
        if apart:
            return Tried(trouble=f"not exact here ({apart})")
        took = [clock(lambda: (sample.passes(name), None)[1]) for _ in range(REPEATS)]
    except Exception as error:  # of other people's kernels, on any device: ours is there
        first = str(error).partition("\n")[0][:120]
        return Tried(trouble=f"does not run here ({type(error).__name__}: {first})")
    return Tried(min(seconds for seconds, _ in took), max(size for _, size in took))


def _apart(
    mine: tuple[Tensor, list[Tensor]], right: tuple[Tensor, list[Tensor]], dtype: torch.dtype
) -> str:
    """In what a way differs from ours by more than rounding; nothing where it does not."""
    values = largest(mine[0] - right[0])
    if not at_most(values, TOLERANCE[dtype]):
        return f"values differ by {values:.1e}"
    for one, other in zip(mine[1], right[1], strict=True):
        gap = ((one.float() - other.float()).norm() / other.float().norm()).item()
        if not at_most(gap, GRADIENTS[dtype]):
            return f"a gradient differs by {gap:.1e} of its size"
    return ""


def _on_cuda(work: Callable[[], None]) -> tuple[float, int]:
    torch.cuda.synchronize()
    held = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - began, torch.cuda.max_memory_allocated() - held
