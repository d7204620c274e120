"""A token drawn from logits: transformers' own warping, and a random number of the row's own.

Legend: R rows, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from onestage.rollout.engines import Decoding


def warpers(how: Decoding) -> Any:
    """transformers' own temperature and truncation, in its order."""
    found = LogitsProcessorList()
    if how.temperature not in (0.0, 1.0):
        found.append(TemperatureLogitsWarper(how.temperature))
    if how.top_k:
        found.append(TopKLogitsWarper(how.top_k))
    if how.top_p < 1:
        found.append(TopPLogitsWarper(how.top_p))
    if how.min_p > 0:
        found.append(MinPLogitsWarper(how.min_p))
    return found


def draw(logits_RV: Tensor, chance_R: Tensor, how: Decoding, warp: Any) -> tuple[Tensor, Tensor]:
    """A token (R) for each row and its log-probability (R) at temperature 1, untruncated.

    It is the likeliest, or the one on which `chance` falls in the cumulated probabilities.
    """
    logp_RV = torch.log_softmax(logits_RV.float(), -1)
    if how.temperature == 0:
        token_R1 = logp_RV.argmax(-1, keepdim=True)
    else:
        total_RV = torch.softmax(warp(None, logp_RV), -1).cumsum_(-1)
        whole_R1 = total_RV[:, -1:]
        # below the whole, so that no rounding finds a token behind the last one with any probability
        below_R1 = torch.nextafter(whole_R1, torch.zeros_like(whole_R1))
        found_R1 = torch.minimum(chance_R[:, None] * whole_R1, below_R1)
        token_R1 = torch.searchsorted(total_RV, found_R1, right=True)
    return token_R1[:, 0], logp_RV.gather(1, token_R1)[:, 0]
