"""A short text by which a copy of the policy is compared with it before anything is sampled.

The comparison after each sampling (`_agreement`) sees an adapter only once it says something else than
its base, and after small updates that is less than rounding. So an adapter that vLLM is to load is tried
with random numbers in it, which say something else from the start: it must arrive in all its layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from onestage.models.export import random_adapter

TEXT = (
    "The capital of France is Paris. If 12 apples cost 3 euros, then 20 apples cost 5 euros.\n"
    "def twice(x):\n    return 2 * x  # naïve, größer, 東京, 🙂\n"
)
"""Words, numbers, code, and letters that tokenizers treat in ways of their own."""
EFFECT = 0.5
"""Nats a token that random numbers in an adapter change at least: far above any rounding."""
SPREADS = [0.002 * 2**n for n in range(14)]
"""Of these numbers, one after the other until the effect is there."""
PART = 0.25
"""Of the effect that the copy may be off by. With an adapter in no layer it is off by all of it."""
Score = Callable[[list[int]], Tensor]
"""What a copy says of a text: as `said`."""


def probe_ids(tokenizer: Any) -> list[int]:
    """The text's token ids, without beginning or end."""
    ids: list[int] = tokenizer(TEXT, add_special_tokens=False).input_ids
    return ids


@torch.no_grad()
def said(model: Any, ids: list[int]) -> Tensor:
    """Log-probabilities (float32, on the CPU) of all tokens of a text but the first."""
    training = model.training
    model.eval()
    try:
        logits = model(torch.tensor([ids], device=model.device)).logits[0, :-1].float()
    finally:
        model.train(training)
    logp = torch.log_softmax(logits, -1).cpu()
    return logp.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]


def distance(one: Tensor, other: Tensor) -> float:
    """Mean distance, in nats a token."""
    return (one - other).abs().mean().item()


def base_gap(model: Any, ids: list[int], score: Score) -> float:
    """How far (nats a token) a copy of the base is from the policy's own, both without adapter."""
    with model.disable_adapter():
        return distance(said(model, ids), score(ids))


def try_adapter(model: Any, ids: list[int], load: Callable[[], None], score: Score) -> str | None:
    """What is wrong with a copy's way of loading adapters, if anything.

    `load`: hands the policy's adapter over as it stands; `score`: by the copy, with what it was given.
    """
    with model.disable_adapter():
        base = said(model, ids)
    for spread in SPREADS:
        with random_adapter(model, spread):
            own = said(model, ids)
            effect = distance(own, base)
            if effect >= EFFECT or spread == SPREADS[-1]:
                load()
                copy = score(ids)
                break
    gap, moved = distance(own, copy), distance(copy, base)
    if gap <= PART * effect:
        return None
    return (
        f"vLLM took the adapter and did not bind it to all its modules: random numbers in it change a "
        f"text's log-probabilities by {effect:.3g} nats a token in the policy and by {moved:.3g} in "
        f"vLLM, and the two are {gap:.3g} apart"
    )
