"""SRFT by hand, and its weights by entropy."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from support.objective_batches import NAN
from support.sampled_batches import gradient, group, kept, later
from support.second_opinions import agree, masked_mean, table
from torch import Tensor

from onestage.objectives import Scored
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


def test_somebody_elses_loss() -> None:
    """After an update: HPT's authors' SRFT (`offline_loss_type: srft` of `mix_src/mix_actor.py`,
    TsinghuaC3I/ Unify-Post-Training) with ratios (`classic_rl`) and without their reshaping of the
    worked tokens, which the paper has not; its imitation is a mean over tokens, ours a sum over the
    greatest length. (Their own `compute_token_on_off_policy_srft_loss`, run beside this, gives the
    same to 1e-5 in float64.)"""
    objective = SRFT(max_completion_length=10)
    lengths, draw = [2, 3, 4], torch.Generator().manual_seed(6)
    entropy = torch.rand(9, generator=draw, dtype=torch.float64).tolist()
    batch = group([1, 0.1, 1], roles=[0, 0, 2], lengths=lengths, logp=-0.9, entropy=entropy)
    batch = later(
        kept(objective, batch, again=True), (0.5 + torch.rand(9, generator=draw)).tolist()
    )

    def theirs(batch: Scored) -> Tensor:
        tokens, logp = table(batch, torch.ones_like(batch.logp_K)), table(batch, batch.logp_K)
        uncertain = table(batch, batch.extra["entropy"]).sum(1, keepdim=True) / tokens.sum(
            1, keepdim=True
        )
        coefficient = torch.where(torch.tensor([[True], [False]]), 0.1 * uncertain[:2].exp(), -1.0)
        sampled = -coefficient * torch.exp(logp[:2] + 0.9)
        worked = -(1 - (1 + 0.1 + 1) / 3) * logp[2:].exp()
        policy = (torch.cat([sampled, worked]) * tokens).sum() / 10
        imitated = masked_mean(-0.5 * (-uncertain[2:]).exp() * logp[2:], tokens[2:])
        return policy + imitated * (tokens[2:].sum() / 10)

    agree(objective, batch, theirs)
