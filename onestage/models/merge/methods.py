"""How several deltas of one tensor become one. Pure functions of full-weight tensors.

    theta = theta_base + f(delta_1, ..., delta_n),   delta_i = theta_i - theta_base

- `linear`: sum w_i delta_i / sum w_i, which is theta = sum w_i theta_i / sum w_i. Model averaging (MA,
  arXiv 2309.06256) is this, with the pre-trained model as one of the two.
- `task_arithmetic`: sum w_i delta_i (2212.04089).
- `ties`: trim each delta to its largest entries, elect a sign for each entry, and take the mean of
  w_i delta_i over the deltas that have it (2306.01708).
- `dare_linear`: drop entries at random, divide the rest by `density`, sum w_i delta_i (2311.03099).
- `dare_ties`: drop and rescale as in DARE, then sign and mean as in TIES.
- `slerp`: along the arc from delta_1 to delta_2 (Shoemake 1985).

The four in the middle are PEFT's functions on the delta tensors. PEFT's own `add_weighted_adapter`
is not used: its `linear`, `ties` and `dare_*` combine the factors A and B separately, and
(w B1 + w B2)(w A1 + w A2) has the cross terms B1 A2 and B2 A1, which belong to neither model.

What PEFT's functions do, where papers leave room: trimming is tensor by tensor (the TIES paper trims
the whole task vector at once); the sign is elected by the sum of the trimmed deltas, before weights;
the mean divides by the number that agree, not by their weights, so weights of 0.5 halve the delta.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from onestage.models.merge import DENSITY, LINEAR, SLERP, TIES, TRIMMED

NEARLY_PARALLEL = 0.9995
"""Beyond this cosine, either way, the arc is a line to float32's precision, or has no direction."""
Combine = Callable[[Sequence[Tensor]], Tensor]


def combiner(method: str, weights: Sequence[float], density: float = DENSITY) -> Combine:
    """The function f of one method: float32 deltas of one shape in, one out.

    The random ones draw from torch's global generator.
    """
    if method == SLERP:
        return lambda deltas: slerp(*deltas, share=weights[1] / sum(weights))
    from peft.utils import merge_utils

    whole = sum(weights) if method == LINEAR else 1.0
    name = "task_arithmetic" if method == LINEAR else method
    function: Any = getattr(merge_utils, name)

    def combine(deltas: Sequence[Tensor]) -> Tensor:
        # Of a few numbers at least one stays, where a share of them is less than one.
        few = (1 + 1e-6) / deltas[0].numel() if method == TIES else 0.0
        options = {"density": min(1.0, max(density, few))} if method in TRIMMED else {}
        scale = torch.tensor([weight / whole for weight in weights], device=deltas[0].device)
        with warnings.catch_warnings():
            # A density of 1 is asked for by name; PEFT warns that nothing is pruned.
            warnings.filterwarnings("ignore", message="The density")
            merged: Tensor = function(list(deltas), scale, **options)
        return merged

    return combine


def slerp(first: Tensor, second: Tensor, *, share: float) -> Tensor:
    """The point at `share` (0 to 1) of the arc from one delta to the other, as flat vectors.

    The arc is between deltas and not between weights: two models of one base have nearly parallel
    weights, so between those it would be a line. Where the deltas are nearly parallel, opposed, or
    one is zero, it is a line too.
    """
    scale = first.norm() * second.norm()
    cosine = (first.flatten() @ second.flatten() / scale).item() if scale > 0 else 1.0
    if abs(cosine) > NEARLY_PARALLEL:
        return torch.lerp(first, second, share)
    angle = math.acos(cosine)
    near, far = math.sin((1 - share) * angle), math.sin(share * angle)
    return (near * first + far * second) / math.sin(angle)
