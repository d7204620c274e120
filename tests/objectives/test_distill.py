"""Distillation: whose tokens, which divergence, and TRL's own loss."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.objective_batches import NAN, scored

from onestage.models.distributions import Head, divergences
from onestage.models.head import Shape
from onestage.objectives.distill import Distill

NAMES = {"forward": "forward_kl", "reverse": "reverse_kl", "js": "js"}


def test_whose_tokens() -> None:
    """Good answers of the data and sampled ones, whatever their reward; no hint, no worked answer."""
    records = [("demonstration", [NAN]), ("pair", [NAN, NAN]), ("check", [NAN, 0.0, 1.0, 1.0])]
    batch = scored(records, lengths=[1, 2, 3, 4, 5, 6, 7], roles=[0, 0, 0, 1, 0, 0, 2])
    units = Distill().units(batch.feedback)
    assert units.count.item() == 1 + 2 + 5 + 6


@pytest.mark.parametrize("divergence", sorted(NAMES))
def test_by_what_is_told(divergence: str) -> None:
    objective = Distill(divergence=divergence)
    assert objective.needs == {"logp", "reference", NAMES[divergence]}
    batch = scored([("demonstration", [NAN])], lengths=[2])
    batch = replace(batch, extra={NAMES[divergence]: torch.tensor([0.5, 0.25])})
    assert objective(batch).mean().item() == pytest.approx(0.375)


@pytest.mark.parametrize(("divergence", "beta"), [("forward", 0.0), ("reverse", 1.0), ("js", 0.5)])
def test_trl_says_the_same(divergence: str, beta: float) -> None:
    """TRL's generalised Jensen-Shannon divergence, on logits; loss and gradient."""
    gkd = pytest.importorskip("trl.experimental.gkd.gkd_trainer").GKDTrainer
    draw = torch.Generator().manual_seed(0)
    states, weight, other = (
        2 * torch.randn(n, 8, generator=draw, dtype=torch.float64) for n in (4, 30, 4)
    )
    states.requires_grad_()
    logits, teacher = ((x @ weight.t())[None] for x in (states, other))
    theirs = gkd.generalized_jsd_loss(logits, teacher, beta=beta, reduction="sum")
    head = Head(weight, None, Shape())
    found = divergences([NAMES[divergence]], states, head, other, head)
    batch = scored([("demonstration", [NAN])], lengths=[4], dtype=torch.float64)
    mine = Distill(divergence=divergence)(replace(batch, extra=found)).loss_U.sum()
    assert mine.item() == pytest.approx(theirs.item(), rel=1e-5)
    (my_slope,) = torch.autograd.grad(mine, states)
    (their_slope,) = torch.autograd.grad(theirs, states)
    torch.testing.assert_close(my_slope, their_slope, rtol=1e-5, atol=1e-5)
