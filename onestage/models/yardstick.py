"""What a policy is measured against: the model as transformers loads it, and its own rounding.

A check that runs both sides with our attention passes whatever that attention loses (attention sinks, a
causal mask that the model leaves to its own implementation). So the yardstick is the model's own forward
pass, one path at a time, in the attention that `from_pretrained` chooses where nobody asks for another,
and with adapters as PEFT runs them.

What of a difference is rounding depends on the model, its size and its precision: a real model in
bfloat16 moves by tenths of a nat when a batch is merely padded. So the model is asked, in the same
precision and in layouts that mean the same (`spread`).

Legend: K scored entries of some paths.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from onestage.data.trees import TokenPath
from onestage.models.four_bits import packed
from onestage.models.low_rank import as_peft_does
from onestage.models.sharding import full
from onestage.stats import at_most

if TYPE_CHECKING:
    from onestage.models.policy import Policy

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8, torch.bfloat16: 0.1, torch.float16: 0.02}
"""Difference of a token's log-probability that no model need explain, by its precision."""
PADDING = 32
"""Tokens of padding in the layout that is compared with none."""
ENOUGH = 1024
"""Tokens in which the rounding of a model is looked for."""
MEAN, LARGEST = 3.0, 4.0
"""How much farther than two of its own layouts from each other ours may lie from the model, in the root
mean square and at the largest. Between layouts of SmolLM2 and Gemma 3 these differ by factors of 2."""


def own_attention(base: Any) -> str:
    """The attention that transformers gives a model when nobody asks for one."""
    now: str = base.config._attn_implementation
    if not switches(base):
        return now
    # Scaled-dot-product attention, which would be the default, has no soft cap.
    if getattr(base.config, "attn_logit_softcapping", None) is not None:
        return "eager"
    return str(base.get_correct_attn_implementation(None))


def switches(base: Any) -> bool:
    """Whether the model looks up its attention when it is run; older ones are made with theirs."""
    return bool(base._can_set_attn_implementation())


@contextlib.contextmanager
def using(base: Any, attention: str) -> Iterator[None]:
    """The model with another attention inside. Raises `ValueError` where the model has no such one."""
    before = base.config._attn_implementation
    if attention == before:
        yield
        return
    try:
        base.set_attn_implementation(attention)
        yield
    finally:
        base.set_attn_implementation(before)


def plain(policy: Policy, paths: Sequence[TokenPath], padding: int = 0) -> Tensor:
    """What the model as transformers loads it says of the scored tokens (K) of some paths, one by one.

    padding: tokens behind each path that the attention mask hides.
    """
    with using(policy.base, own_attention(policy.base)):
        return _one_by_one(policy, paths, padding)


def spread(policy: Policy, paths: Sequence[TokenPath]) -> list[Tensor]:
    """Differences (K each) between layouts of the plain model that mean the same: padded and not; and
    eager attention and its own."""
    few = _first(paths)
    as_it_is = plain(policy, few)
    found = [plain(policy, few, PADDING) - as_it_is]
    if switches(policy.base) and own_attention(policy.base) != "eager":
        with contextlib.suppress(ValueError, ImportError), using(policy.base, "eager"):
            found.append(_one_by_one(policy, few) - as_it_is)
    return found


class Rounding:
    """Judges whether a difference between two passes of a model is its rounding."""

    def __init__(
        self, floor: float, measure: Callable[[], list[Tensor]], at_once: bool = False
    ) -> None:
        """floor: what needs no explanation; measure: how the model differs from itself (see `spread`),
        asked for when a difference is larger, or at once.

        Weights in parts are put together by all ranks for each forward pass, so there none may ask for
        more of them alone, because its difference is larger than another's.
        """
        self.floor, self._measure = floor, measure
        if at_once:
            _ = self.known

    @cached_property
    def known(self) -> tuple[float, float]:
        """Root mean square and largest difference of the model from itself."""
        found = self._measure()
        return max(map(root_mean_square, found)), max(map(largest, found))

    def covers(self, gap: Tensor) -> bool:
        """Whether a difference is finite and no more than rounding."""
        if at_most(largest(gap), self.floor):
            return True
        mean, most = self.known
        return at_most(root_mean_square(gap), MEAN * mean) and at_most(
            largest(gap), LARGEST * most + self.floor
        )


def largest(gap: Tensor) -> float:
    """The largest absolute value; NaN where one is, 0 where there is none."""
    return gap.abs().max().item() if gap.numel() else 0.0


def root_mean_square(gap: Tensor) -> float:
    return gap.to(wide(gap.device)).pow(2).mean().sqrt().item() if gap.numel() else 0.0


def wide(device: torch.device) -> torch.dtype:
    """The precision of what is to be exact: float64, which Apple's devices do not have."""
    return torch.float32 if device.type == "mps" else torch.float64


def not_finite(model: Any) -> str:
    """Of a model with NaN or infinite weights a sentence that names the first of them, else nothing."""
    bytes_of = packed(model)
    for name, tensor in model.named_parameters():
        if id(tensor) in bytes_of or not tensor.is_floating_point():
            continue
        weight = tensor.detach()
        # A finite sum has finite terms only (the opposite may overflow). Asked first, for on a CPU it
        # takes a fortieth of the time: .05 s for 2 of Gemma 3 270M.
        if bool(torch.isfinite(full(weight.sum()))):
            continue
        bad = int(full((~torch.isfinite(weight)).sum()))
        if bad:
            return f"the tensor {name} holds {bad} of {tensor.numel()} numbers that are not finite"
    return ""


def _one_by_one(policy: Policy, paths: Sequence[TokenPath], padding: int = 0) -> Tensor:
    with as_peft_does(policy.model):
        return torch.cat([policy.alone(path, chunked=False, padding=padding) for path in paths])


def _first(paths: Sequence[TokenPath]) -> list[TokenPath]:
    few: list[TokenPath] = []
    for path in paths:
        few.append(path)
        if sum(len(one.ids) for one in few) >= ENOUGH:
            break
    return few
