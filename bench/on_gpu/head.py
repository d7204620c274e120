"""From hidden states to token log-probabilities at the size of a large model: time and memory.

Ours, Liger's and TRL's by the function that a run chooses among them with (`models.head_ways`).
Forward and backward of `sum(weight_K * logp_K)` with gradients of hidden states and head, K = 8,192
positions, hidden size 4,096, vocabulary 151,936, bfloat16. Gradients are compared with those of full
logits in float32 arithmetic on the same bfloat16 numbers (relative distance).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from on_gpu import Found, Given, fresh, peak_gib, spread, timed

BEYOND = 0.0


def measure(given: Given) -> Found:
    import torch

    size, hidden, vocabulary = given.of((64, 32, 500), (8192, 4096, 151936))
    found = Found(
        f"K = {size:,}, H = {hidden:,}, V = {vocabulary:,}, bfloat16, forward and backward.",
        ("way", "ms (least-most)", "GiB beyond the inputs", "gradient apart"),
    )
    generator = torch.Generator(given.device).manual_seed(0)

    def drawn(*shape: int) -> Any:
        return torch.randn(*shape, generator=generator, device=given.device)

    h = drawn(size, hidden).to(torch.bfloat16).requires_grad_()
    weight = (0.02 * drawn(vocabulary, hidden)).to(torch.bfloat16).requires_grad_()
    target = torch.randint(vocabulary, (size,), generator=generator, device=given.device)
    factor = drawn(size)
    right: Any = None
    for name, way in ways().items():
        try:
            row, gradients = one_way(way, h, weight, target, factor, given)
        except Exception as error:
            found.add(name, f"cannot: {str(error).splitlines()[0][:80]}", "", "")
            continue
        right = gradients if right is None else right
        gap = max(
            ((a.float() - b.float()).norm() / b.float().norm()).item()
            for a, b in zip(gradients, right, strict=True)
        )
        found.add(name, *row, gap)
        found.require(gap < 0.02, f"the gradient of {name} is {gap:.2g} apart")
        del gradients
        fresh()
    return found


def one_way(way: Any, h: Any, weight: Any, target: Any, factor: Any, given: Given) -> Any:
    import torch

    def both() -> None:
        h.grad = weight.grad = None
        (way(h, weight, target) * factor).sum().backward()

    h.grad = weight.grad = None
    fresh()
    before = torch.cuda.memory_allocated() / 2**30 if given.device == "cuda" else 0.0
    seconds = timed(both, given.of(1, 5))
    return (spread(seconds, 1e3), peak_gib() - before), (h.grad.clone(), weight.grad.clone())


def ways() -> dict[str, Callable[..., Any]]:
    return {
        "full logits": full,
        "onestage": partial(by, "onestage"),
        "Liger fused (per-token loss)": partial(by, "liger"),
        "TRL fused": partial(by, "trl"),
        "torch linear_cross_entropy, chunked": library,
    }


def full(h: Any, weight: Any, target: Any) -> Any:
    import torch.nn.functional as F

    logits = F.linear(h, weight).float()
    return F.log_softmax(logits, -1).gather(1, target[:, None])[:, 0]


def by(name: str, h: Any, weight: Any, target: Any) -> Any:
    from onestage.models.head_ways import logps_by

    return logps_by(name, h, weight, target)


def library(h: Any, weight: Any, target: Any) -> Any:
    import torch

    options = torch.nn.LinearCrossEntropyOptions()
    return -torch.nn.functional.linear_cross_entropy(
        h, weight, target, reduction="none", options=options
    )
