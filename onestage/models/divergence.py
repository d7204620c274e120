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
from onestage.data.trees import TokenPath
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


@dataclass(frozen=True)
class Apart:
    """Two models at the scored entries of a row, in the order of its tree (K each)."""

    kl_K: Tensor
    """KL(start || now), nats."""
    start_logp_K: Tensor
    now_logp_K: Tensor


def between(start: Policy, now: Policy, row: Row) -> Apart:
    """How far two models are apart at a row's scored entries, each run once: by their hidden states and
    heads, or, where a head is not a plain linear map, by the models' own logits, which exist at once for
    one path. Both must have the same vocabulary."""
    by_states = start.fit.chunked_head and now.fit.chunked_head
    logits_of = _by_states if by_states else _by_their_own
    found = []
    with torch.no_grad():
        for both in zip(logits_of(start, row), logits_of(now, row), strict=True):
            (old_kV, target_k), (new_kV, _) = both
            for logits_kV in (old_kV, new_kV):  # as in `readout`: one by one, `log_softmax` adds up
                logits_kV -= torch.logsumexp(logits_kV, -1, keepdim=True)
            said = [each.gather(1, target_k[:, None])[:, 0] for each in (old_kV, new_kV)]
            rise_kV = torch.sub(old_kV, new_kV, out=new_kV)
            found.append((old_kV.exp_().mul_(rise_kV).sum(-1), *said))
    return Apart(*map(torch.cat, zip(*found, strict=True)))


def _by_states(policy: Policy, row: Row) -> Iterator[tuple[Tensor, Tensor]]:
    """Of a row's scored entries, a chunk after the other: the logits that they come from (k, V, float32;
    the caller may overwrite them), and their tokens (k)."""
    hidden_KH, target_K = _states(policy, row)
    for hidden_kH, target_k in zip(hidden_KH.split(CHUNK), target_K.split(CHUNK), strict=True):
        yield full_logits(hidden_kH, *_head(policy), shape_of(policy.base.config)), target_k


def _by_their_own(policy: Policy, row: Row) -> Iterator[tuple[Tensor, Tensor]]:
    """The same, as the model itself makes them: each path alone."""
    for path in row.paths:
        ids, at_K = _of_path(path, policy.device)
        logits_TV = policy.base(input_ids=ids[None], use_cache=False).logits[0]
        for at_k in at_K.split(CHUNK):
            yield logits_TV[at_k - 1].float(), ids[at_k]


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
        ids, at_K = _of_path(path, policy.device)
        states.append(policy.readout.hidden(input_ids=ids[None])[at_K - 1])
        targets.append(ids[at_K])
    return torch.cat(states), torch.cat(targets)


def _of_path(path: TokenPath, device: torch.device) -> tuple[Tensor, Tensor]:
    """A path's token ids (T), and the places of what it scores (K)."""
    return on_device(path.ids.astype(np.int64), device), on_device(places_of(path), device)
