"""DPO against hand arithmetic, and against TRL's."""

from __future__ import annotations

import math

import pytest
import torch
from support.objective_batches import NAN, scored
from support.second_opinions import agree, some_pairs, trl_dpo

from onestage.objectives.dpo import DPO


def pairs(*log_ratios: float):
    records = [("pair", [NAN, NAN])] * (len(log_ratios) // 2)
    return scored(records, log_ratios=log_ratios)


def test_by_hand() -> None:
    """D_w = 2, D_l = -1, beta 0.1: -log sigma(0.3) = log(1 + e^-0.3)."""
    loss = DPO(beta=0.1)(pairs(2.0, -1.0))
    assert loss.loss_U.item() == pytest.approx(math.log1p(math.exp(-0.3)), rel=1e-6)


def test_label_smoothing_by_hand() -> None:
    loss = DPO(beta=0.1, label_smoothing=0.25)(pairs(2.0, -1.0)).loss_U.item()
    want = 0.75 * math.log1p(math.exp(-0.3)) + 0.25 * math.log1p(math.exp(0.3))
    assert loss == pytest.approx(want, rel=1e-6)


def test_start_is_ln_2_a_pair() -> None:
    objective, batch = DPO(), pairs(0.0, 0.0, 0.0, 0.0)
    mean = objective(batch).loss_U.sum() / objective.units(batch.feedback).count
    assert mean.item() == pytest.approx(math.log(2))


def test_the_gradient_parts_the_two() -> None:
    """At the start -dL/dlogp is +beta/2 a chosen token and -beta/2 a rejected one (table 1f)."""
    batch = pairs(0.0, 0.0)
    logp_K = batch.logp_K.clone().requires_grad_()
    given = type(batch)(batch.feedback, logp_K, batch.ref_logp_K, batch.response_K)
    DPO(beta=0.1)(given).loss_U.sum().backward()
    sign_K = torch.where(batch.response_K == 0, -1.0, 1.0)
    torch.testing.assert_close(logp_K.grad, 0.05 * sign_K)


def test_a_common_offset_cancels() -> None:
    """UNA Eq. 10 / test T7: f(x) + c adds the same to both sides."""
    assert DPO()(pairs(2.0, -1.0)).loss_U.item() == pytest.approx(
        DPO()(pairs(9.0, 6.0)).loss_U.item(), rel=1e-5
    )


def test_trl_says_the_same() -> None:
    agree(DPO(beta=0.2), some_pairs(6), trl_dpo("sigmoid", 0.2))
