"""SRFT by hand, and its weights by entropy."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from support.objective_batches import NAN
from support.sampled_batches import gradient, group, kept

from onestage.objectives.srft import SRFT


def test_by_hand() -> None:
    """Right, wrong (0.1 is wrong) and worked; joint mean 0.7, entropies 2, 1 and (1 + 2) / 2."""
    objective = SRFT(max_completion_length=10)
    logp = [-1.0, -2.0, math.log(0.5), math.log(0.1)]
    batch = group(
        [1, 0.1, 1], lengths=[1, 1, 2], roles=[0, 0, 2], logp=logp, entropy=[2.0, 1.0, 1.0, 2.0]
    )
    batch = kept(objective, batch)
    likely = 0.5 * math.exp(-1.5)
    worked = [-likely * math.log(p) - 0.3 * p for p in (0.5, 0.1)]
    assert objective(batch).loss_U.tolist() == pytest.approx(
        [-0.1 * math.exp(2.0) / 10, 1.0 / 10, sum(worked) / 10]
    )
    want = [-0.1 * math.exp(2.0), 1.0, -likely - 0.3 * 0.5, -likely - 0.3 * 0.1]
    assert gradient(objective, batch) == pytest.approx([slope / 30 for slope in want])


def test_no_gradient_goes_through_the_entropy() -> None:
    objective = SRFT()
    batch = kept(objective, group([1, 0, 1], roles=[0, 0, 2], entropy=1.0))
    logp_K = batch.logp_K.clone().requires_grad_()
    entropy_K = batch.extra["entropy"].clone().requires_grad_()
    objective(replace(batch, logp_K=logp_K, extra={"entropy": entropy_K})).loss_U.sum().backward()
    assert entropy_K.grad is None
    assert logp_K.grad is not None


def test_the_surer_the_more_imitation() -> None:
    objective = SRFT()

    def slopes(entropy: float) -> list[float]:
        batch = group([1, 0, 1], roles=[0, 0, 2], logp=-9.0, entropy=entropy)
        return gradient(objective, kept(objective, batch))

    (sure_right, sure_wrong, sure_worked), (right, wrong, worked) = slopes(0.1), slopes(2.0)
    assert abs(sure_worked) > abs(worked)
    assert abs(sure_right) < abs(right)
    assert sure_wrong == wrong


def test_what_it_uses() -> None:
    objective = SRFT()
    assert "worked" in objective.needs
    assert objective.needs == {"logp", "entropy", "worked"}
    assert "reference" not in objective.needs
    hinted = kept(objective, group([NAN, 1, 1], roles=[1, 0, 2], entropy=1.0))
    assert gradient(objective, hinted)[0] == 0
    assert torch.isfinite(objective(hinted).loss_U).all()
