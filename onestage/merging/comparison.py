"""How far models are from each other, on real tokens. Legend: T tokens of all prompts, V vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from onestage.policy.policy import TOLERANCE


@dataclass(frozen=True, slots=True)
class Distance:
    """From one model to the merged one. `logit`: the largest absolute difference of any logit.
    `kl`: mean over tokens of KL(model || merged), in nats."""

    name: str
    logit: float
    kl: float
    zeros: float | None = None
    """Share of the model's delta from the base that is 0 (|d| < 1e-5), of those it could change."""


@torch.no_grad()
def logits_of(model: Any, prompts: Sequence[np.ndarray[Any, Any]]) -> Tensor:
    """Logits (T, V) of some prompts, one after another, in float32 on the CPU."""
    rows = []
    for ids in prompts:
        ids_T = torch.from_numpy(np.asarray(ids, np.int64)).to(model.device)
        rows.append(model(input_ids=ids_T[None], use_cache=False).logits[0].float().cpu())
    return torch.cat(rows)


def distance(name: str, theirs_TV: Tensor, merged_TV: Tensor, zeros: float | None) -> Distance:
    """How far the merged model's logits are from a model's."""
    logp_TV = torch.log_softmax(theirs_TV, -1)
    kl_T = (logp_TV.exp() * (logp_TV - torch.log_softmax(merged_TV, -1))).sum(-1)
    return Distance(name, (theirs_TV - merged_TV).abs().max().item(), kl_T.mean().item(), zeros)


def check_saved(
    folder: Path, prompts: Sequence[np.ndarray[Any, Any]], merged_TV: Tensor, dtype: torch.dtype
) -> float:
    """Largest difference of a logit between the saved folder, loaded by plain transformers, and the
    model that was saved. Raises `RuntimeError` where it is more than rounding."""
    saved = AutoModelForCausalLM.from_pretrained(folder)
    found = (logits_of(saved.eval(), prompts) - merged_TV).abs().max().item()
    # Rounding grows with the logits themselves, and log-probabilities are of the size of 1.
    allowed = TOLERANCE[dtype] * max(1.0, merged_TV.abs().max().item())
    if not found <= allowed:
        raise RuntimeError(
            f"the saved model gives logits that differ by {found:.2g} from the merged model in memory "
            f"(rounding is up to {allowed:.2g}); it was not kept"
        )
    return found
