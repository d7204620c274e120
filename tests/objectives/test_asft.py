"""ASFT against hand arithmetic, its limit DFT, and the authors' loss from logits, written anew."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from support.objective_batches import NAN, scored

from onestage.models.distributions import Head, divergences
from onestage.models.head import Shape
from onestage.objectives.asft import ASFT
from onestage.objectives.sft import SFT


def demonstrated(dtype: torch.dtype = torch.float32):
    return scored([("demonstration", [NAN])], lengths=[3], seed=1, dtype=dtype)


def test_by_hand() -> None:
    """p of 1/2, 1/4 and 1, and KLs of 0, 1 and 2: p log(1/p) + KL / 10."""
    batch = replace(
        demonstrated(),
        logp_K=torch.tensor([0.5, 0.25, 1.0]).log(),
        extra={"forward_kl": torch.tensor([0.0, 1.0, 2.0])},
    )
    want = [0.5 * math.log(2), 0.25 * math.log(4) + 0.1, 0.2]
    loss = ASFT()(batch)
    assert loss.loss_U.tolist() == pytest.approx(want, rel=1e-5)
    assert loss.metrics["forward_kl"].value_M.item() == pytest.approx(1.0)


def test_without_the_leash_it_is_dft() -> None:
    batch = demonstrated()
    assert torch.equal(ASFT(kl_coef=0.0)(batch).loss_U, SFT(reweight="dft")(batch).loss_U)


def test_the_authors_loss_and_its_gradient() -> None:
    """Their lines: cross-entropy times the detached probability, and torch's own `kl_div`."""
    draw = torch.Generator().manual_seed(0)
    states, weight, other = (
        torch.randn(n, 8, generator=draw, dtype=torch.float64) for n in (3, 30, 3)
    )
    states.requires_grad_()
    target = torch.tensor([3, 0, 29])
    logits, original = states @ weight.t(), other @ weight.t()
    chance = torch.softmax(logits, -1).gather(1, target[:, None])[:, 0].detach()
    entropy = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    kl = torch.nn.functional.kl_div(
        torch.log_softmax(logits, -1), torch.softmax(original, -1), reduction="none"
    ).sum(-1)
    theirs = chance * entropy + 0.3 * kl
    (want,) = torch.autograd.grad(theirs.sum(), states, retain_graph=True)

    head = Head(weight, None, Shape())
    batch = replace(
        demonstrated(torch.float64),
        logp_K=logits.log_softmax(-1).gather(1, target[:, None])[:, 0],
        extra=divergences(["forward_kl"], states, head, other, head),
    )
    mine = ASFT(kl_coef=0.3)(batch).loss_U
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
    (found,) = torch.autograd.grad(mine.sum(), states)
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-6)


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="kl_coef"):
        ASFT(kl_coef=-0.1)
