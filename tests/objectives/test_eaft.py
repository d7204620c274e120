"""EAFT against hand arithmetic, its limit SFT, and the authors' loss from logits, written anew."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from support.objective_batches import NAN, scored
from torch import Tensor

from onestage.models.distributions import Head, top_entropy
from onestage.models.head import Shape
from onestage.objectives.eaft import EAFT
from onestage.objectives.sft import SFT


def demonstrated(entropy: list[float]):
    batch = scored([("demonstration", [NAN])], lengths=[len(entropy)], seed=1)
    return replace(batch, extra={"top_entropy": torch.tensor(entropy)})


def test_by_hand() -> None:
    """Weights of a half, of nothing and of one; squared, of a quarter."""
    batch = demonstrated([math.log(20) / 2, 0.0, math.log(20)])
    a, b, c = (-batch.logp_K).tolist()
    assert EAFT()(batch).loss_U.tolist() == pytest.approx([a / 2, 0.0, c], abs=1e-6)
    assert EAFT(alpha=2.0)(batch).loss_U.tolist() == pytest.approx([a / 4, 0.0, c], abs=1e-6)
    assert EAFT()(batch).metrics["weight"].value_M.item() == pytest.approx(0.5)
    assert b > 0


def test_without_a_power_it_is_sft() -> None:
    batch = demonstrated([0.5, 1.5, 2.5])
    assert torch.equal(EAFT(alpha=0.0)(batch).loss_U, SFT()(batch).loss_U)


def theirs(logits_KV: Tensor, target_K: Tensor) -> Tensor:
    """The authors' loss from logits: softmax of the 20 largest, its entropy over ln 20."""
    with torch.no_grad():
        best = logits_KV.sort(-1, descending=True).values[:, :20].softmax(-1)
        weight_K = -(best * best.log()).sum(-1) / math.log(20)
    return weight_K * torch.nn.functional.cross_entropy(logits_KV, target_K, reduction="none")


def test_from_logits_to_the_loss_and_its_gradient() -> None:
    draw = torch.Generator().manual_seed(0)
    hidden_KH, weight_VH = (2 * torch.randn(n, 8, generator=draw) for n in (3, 50))
    target_K = torch.tensor([3, 0, 49])
    hidden_KH.requires_grad_()
    logits_KV = hidden_KH @ weight_VH.t()
    logp_K = logits_KV.log_softmax(-1).gather(1, target_K[:, None])[:, 0]
    entropy_K = top_entropy(hidden_KH, Head(weight_VH, None, Shape()))
    assert not entropy_K.requires_grad
    batch = replace(demonstrated([0.0] * 3), logp_K=logp_K, extra={"top_entropy": entropy_K})
    mine_K, other_K = EAFT()(batch).loss_U, theirs(logits_KV, target_K)
    torch.testing.assert_close(mine_K, other_K, rtol=1e-5, atol=1e-6)
    (mine,) = torch.autograd.grad(mine_K.sum(), hidden_KH, retain_graph=True)
    (other,) = torch.autograd.grad(other_K.sum(), hidden_KH)
    torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="alpha"):
        EAFT(alpha=-1.0)
