"""Whole distributions of the next token: how spread out one is, and how far two models' are apart.

    forward_kl   sum_v q_v log(q_v / p_v)            q the reference's (or a teacher's), p the policy's
    reverse_kl   sum_v p_v log(p_v / q_v)
    js           KL(p || m) / 2 + KL(q || m) / 2,    m = (p + q) / 2

all in nats, of one position. Log-probabilities of the reference are kept on disk (`reference`); whole
distributions would be V numbers a token. So the other model is asked again about each row that is
trained on, and what is held of it are its hidden states (H numbers a position). Logits of both are made
in chunks of positions, and made again for the backward pass, as in `head`. The policy's own distribution
is all that `top_entropy` and `rivals` need.

Legend: K scored positions, T nodes of a row, H hidden size, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus
from torch.utils.checkpoint import checkpoint

from onestage.models.head import CHUNK_ELEMENTS, FEWEST, Shape, full_logits

DIVERGENCES = ("forward_kl", "reverse_kl", "js")
TOP = 20
"""Tokens whose entropy `top_entropy` is."""


@dataclass(frozen=True)
class Head:
    """What makes logits of hidden states."""

    weight_VH: Tensor
    bias_V: Tensor | None
    shape: Shape

    def log_probabilities(self, hidden_KH: Tensor) -> Tensor:
        """Of all tokens (K, V, float32)."""
        logits_KV = full_logits(hidden_KH, self.weight_VH, self.bias_V, self.shape)
        return torch.log_softmax(logits_KV, -1)

    @property
    def positions(self) -> int:
        """Positions whose logits are made at once."""
        device = self.weight_VH.device.type
        elements = CHUNK_ELEMENTS.get(device, CHUNK_ELEMENTS["cuda"])
        return max(FEWEST, elements // self.weight_VH.shape[0] // FEWEST * FEWEST)


@dataclass(frozen=True)
class Other:
    """Another model's distributions at all nodes of a row (or of a path): no gradient goes there."""

    hidden_TH: Tensor
    head: Head


def top_entropy(hidden_KH: Tensor, head: Head) -> Tensor:
    """Entropy (K, nats, float32, without gradients) of the likeliest `TOP` tokens, their probabilities
    brought to a sum of 1: at most log TOP."""
    found = [hidden_KH.new_empty(0, dtype=torch.float32)]
    with torch.no_grad():
        for part_kH in hidden_KH.split(head.positions):
            logp_kV = head.log_probabilities(part_kH)
            logp = logp_kV.topk(min(TOP, logp_kV.shape[1]), dim=-1).values.log_softmax(-1)
            found.append(-(logp.exp() * logp).sum(-1))
    return torch.cat(found)


def rivals(hidden_KH: Tensor, head: Head, target_K: Tensor, count: int) -> Tensor:
    """How the `count` likeliest other tokens stand against each target (K, nats, float32): the mean of
    log(1 + p(target) / p(rival)) over them, each as likely as the policy finds it among them. It is
    differentiable in the states and the head, but for those weights of the mean."""

    def against(part_kH: Tensor, target_k: Tensor) -> Tensor:
        logp_kV = head.log_probabilities(part_kH)
        with torch.no_grad():
            others_kV = logp_kV.scatter(1, target_k[:, None], -math.inf)
            best_kR = others_kV.topk(min(count, logp_kV.shape[1] - 1), dim=-1).indices
            share_kR = others_kV.gather(1, best_kR).softmax(-1)
        ahead_kR = logp_kV.gather(1, target_k[:, None]) - logp_kV.gather(1, best_kR)
        return (share_kR * softplus(ahead_kR)).sum(-1)

    found = [hidden_KH.new_empty(0, dtype=torch.float32)]
    parts = (each.split(head.positions) for each in (hidden_KH, target_K))
    for part_kH, target_k in zip(*parts, strict=True):
        found.append(checkpoint(against, part_kH, target_k, use_reentrant=False))
    return torch.cat(found)


def divergences(
    names: Collection[str], hidden_KH: Tensor, head: Head, other_KH: Tensor, other: Head
) -> dict[str, Tensor]:
    """Those of `DIVERGENCES` that are named (K each, float32), differentiable in the policy's states and
    head. `other_KH`: the other model's states at the same positions."""
    asked = [name for name in DIVERGENCES if name in names]

    def apart(part_kH: Tensor, other_kH: Tensor) -> Tensor:
        p = head.log_probabilities(part_kH)
        with torch.no_grad():
            q = other.log_probabilities(other_kH)
        return torch.stack([_apart(name, p, q) for name in asked])

    found = [hidden_KH.new_empty(len(asked), 0, dtype=torch.float32)]
    parts = (each.split(head.positions) for each in (hidden_KH, other_KH))
    for part_kH, other_kH in zip(*parts, strict=True):
        found.append(checkpoint(apart, part_kH, other_kH, use_reentrant=False))
    return dict(zip(asked, torch.cat(found, dim=1), strict=True))


def _apart(name: str, p: Tensor, q: Tensor) -> Tensor:
    """One of `DIVERGENCES` (K), from log-probabilities (K, V)."""
    if name == "forward_kl":
        return _kl(q, p)
    if name == "reverse_kl":
        return _kl(p, q)
    middle = torch.logaddexp(p, q) - math.log(2.0)
    return (_kl(p, middle) + _kl(q, middle)) / 2


def _kl(p: Tensor, q: Tensor) -> Tensor:
    return (p.exp() * (p - q)).sum(-1)
