"""How far the policy has moved from where it started: KL over the whole vocabulary.

    KL(start || now) = mean over positions of sum_v p_start(v) (log p_start(v) - log p_now(v))

the forward direction, which RL's Razor (Shenfeld et al. 2025, arXiv 2509.04259) finds to follow
forgetting. The start model's final hidden states are kept for a few texts (H numbers a position
instead of V), with a copy of its head where the head is trained; so it can be measured for full
fine-tuning too, long after the start model is gone.

Legend: K scored positions, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from onestage.data.packing import Row
from onestage.models.head import Shape, full_logits, shape_of
from onestage.models.policy import Policy
from onestage.models.readout import on_device, places_of

CHUNK = 128
"""Positions whose two distributions exist at once."""


@dataclass(frozen=True)
class Moved:
    """Means over the scored positions of some rows."""

    loss: float
    """Negative log-probability of the given token."""
    kl: float
    """KL(start || now); NaN for a model whose head is not a plain linear map."""
    positions: int


class Anchor:
    """The start model's distributions at the scored positions of some rows.

    Must be made before the first step. `rows` stay in memory with their hidden states.
    """

    def __init__(self, policy: Policy, rows: Sequence[Row]) -> None:
        self.rows = list(rows)
        self.exact = policy.fit.chunked_head
        self.states: list[Tensor] = []
        self.head: tuple[Tensor, Tensor | None] | None = None
        with policy.evaluating():
            weight, bias = _head(policy)
            trained = weight.requires_grad or (bias is not None and bias.requires_grad)
            if trained and self.exact:
                self.head = (_copy(weight), None if bias is None else _copy(bias))
            for row in self.rows if self.exact else ():
                self.states.append(_states(policy, row)[0].cpu())

    def measure(self, policy: Policy, which: Sequence[int] | None = None) -> Moved:
        """Loss and KL over the rows (or those of the given numbers) under the policy as it stands."""
        loss = kl = 0.0
        count = 0
        with policy.evaluating():
            for number in range(len(self.rows)) if which is None else which:
                for loss_K, kl_KV in self._parts(policy, number):
                    loss, kl = loss + loss_K.sum().item(), kl + kl_KV.sum().item()
                    count += len(loss_K)
        return Moved(loss / max(count, 1), kl / max(count, 1), count)

    def each(self, policy: Policy, number: int) -> tuple[Tensor, Tensor]:
        """Loss and KL (K each, on the CPU) at a row's scored positions, in the order of its tree."""
        with policy.evaluating():
            parts = [(loss_K, kl_KV.sum(-1)) for loss_K, kl_KV in self._parts(policy, number)]
        if not parts:
            return torch.zeros(0), torch.zeros(0)
        loss_K, kl_K = (torch.cat(some).cpu() for some in zip(*parts, strict=True))
        return loss_K, kl_K

    def _parts(self, policy: Policy, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Of a row, a chunk of positions after the other: losses (K), and what their KLs are sums of
        (K, V; NaN (K, 1) for a model whose head is not a plain linear map). Of a row that only keeps
        step with other ranks, nothing; the model is run on it."""
        row, shape = self.rows[number], shape_of(policy.base.config)
        if not self.exact:
            logp_K = policy(row)
            if row.records:
                yield -logp_K, torch.full_like(logp_K, float("nan"))[:, None]
            return
        now_head, old_head = _head(policy), self._old_head(policy)
        hidden_KH, target_K = _states(policy, row)
        if not row.records:
            return
        start_KH = self.states[number].to(hidden_KH.device)
        for first in range(0, len(target_K), CHUNK):
            part = slice(first, first + CHUNK)
            now = _log_probabilities(hidden_KH[part], now_head, shape)
            old = _log_probabilities(start_KH[part], old_head, shape)
            yield -now.gather(1, target_K[part, None])[:, 0], old.exp() * (old - now)

    def pull(self, policy: Policy, number: int, weight: float) -> float:
        """Add the gradient of weight * KL(start || now), a mean over the scored positions of one row, to
        the policy's gradients; returns that KL.

        Dropout is off, as it is where KL is measured. Memory is that of a chunk of logits beside the
        model's own. Not for weights that lie in parts.
        """
        was, shape = policy.training, shape_of(policy.base.config)
        policy.eval()
        try:
            hidden_KH, _ = _states(policy, self.rows[number])
            leaf_KH = hidden_KH.detach().requires_grad_()
            now_head, old_head = _head(policy), self._old_head(policy)
            start_KH, total = self.states[number].to(leaf_KH.device), 0.0
            for first in range(0, len(leaf_KH), CHUNK):
                part = slice(first, first + CHUNK)
                with torch.no_grad():
                    old = _log_probabilities(start_KH[part], old_head, shape)
                now = _log_probabilities(leaf_KH[part], now_head, shape)
                kl = (old.exp() * (old - now)).sum() / len(leaf_KH)
                (weight * kl).backward()
                total += kl.item()
            hidden_KH.backward(leaf_KH.grad)
        finally:
            policy.train(was)
        return total

    def _old_head(self, policy: Policy) -> tuple[Tensor, Tensor | None]:
        """The start model's head: today's, where it is not trained."""
        if self.head is None:
            return _head(policy)
        weight, bias = self.head
        return weight.to(policy.device), None if bias is None else bias.to(policy.device)


def between(start: Policy, now: Policy, row: Row) -> Tensor | None:
    """KL(start || now) (K, nats) at each scored entry of a row, in the order of its tree; None where a
    head is not a plain linear map. Both must have the same vocabulary."""
    if not (start.fit.chunked_head and now.fit.chunked_head):
        return None
    (old_KH, _), (new_KH, _) = _states(start, row), _states(now, row)
    found = []
    for old_kH, new_kH in zip(old_KH.split(CHUNK), new_KH.split(CHUNK), strict=True):
        old = _log_probabilities(old_kH, _head(start), shape_of(start.base.config))
        new = _log_probabilities(new_kH, _head(now), shape_of(now.base.config))
        found.append((old.exp() * (old - new)).sum(-1))
    return torch.cat(found)


def _head(policy: Policy) -> tuple[Tensor, Tensor | None]:
    head = policy.base.get_output_embeddings()
    return head.weight, getattr(head, "bias", None)


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().clone()


def _log_probabilities(
    hidden_KH: Tensor, head: tuple[Tensor, Tensor | None], shape: Shape
) -> Tensor:
    return torch.log_softmax(full_logits(hidden_KH, *head, shape), -1)


def _states(policy: Policy, row: Row) -> tuple[Tensor, Tensor]:
    """Final hidden states (K, H) from which the row's scored tokens (K) are predicted."""
    if policy.packs(row):
        tree, device = row.tree, policy.device
        hidden_TH = policy.readout.hidden(**policy.inputs(row))
        parent_K, token_K = tree.parent_T[tree.node_K], tree.token_T[tree.node_K]
        return hidden_TH[on_device(parent_K, device)], on_device(token_K, device)
    states, targets = [], []
    for path in row.paths:
        at_K = on_device(places_of(path), policy.device)
        ids = on_device(path.ids.astype(np.int64), policy.device)
        states.append(policy.readout.hidden(input_ids=ids[None])[at_K - 1])
        targets.append(ids[at_K])
    return torch.cat(states), torch.cat(targets)
