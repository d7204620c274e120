"""Robust DPO against hand arithmetic, what it is made for, and TRL's own loss."""

from __future__ import annotations

import math

import pytest
import torch
from support.objective_batches import NAN, scored
from support.second_opinions import agree, some_pairs, trl_dpo

from onestage.objectives.dpo import DPO
from onestage.objectives.robust_dpo import RobustDPO


def test_by_hand() -> None:
    """A margin of 3 nats, beta 0.1, e 0.25: (0.75 l(0.3) - 0.25 l(-0.3)) / 0.5."""
    loss = RobustDPO(label_smoothing=0.25)(scored([("pair", [NAN, NAN])], log_ratios=[2.0, -1.0]))
    right, swapped = math.log1p(math.exp(-0.3)), math.log1p(math.exp(0.3))
    assert loss.loss_U.item() == pytest.approx((0.75 * right - 0.25 * swapped) / 0.5, rel=1e-5)


def test_the_mean_over_the_noise_is_the_loss_without_noise() -> None:
    """Nine times as it is, once swapped: DPO on the truth, at any margin."""
    true = scored([("pair", [NAN, NAN])], log_ratios=[5.0, -3.0], dtype=torch.float64)
    swapped = scored([("pair", [NAN, NAN])], log_ratios=[-3.0, 5.0], dtype=torch.float64)
    objective = RobustDPO(label_smoothing=0.1)
    mean = 0.9 * objective(true).mean() + 0.1 * objective(swapped).mean()
    assert mean.item() == pytest.approx(DPO()(true).mean().item(), rel=1e-6)


def test_without_noise_it_is_dpo() -> None:
    batch = some_pairs()
    assert torch.equal(RobustDPO(label_smoothing=0.0)(batch).loss_U, DPO()(batch).loss_U)


def test_trl_says_the_same() -> None:
    objective = RobustDPO(beta=0.3, label_smoothing=0.2)
    agree(objective, some_pairs(), trl_dpo("robust", 0.3, label_smoothing=0.2))


@pytest.mark.parametrize("options", [{"beta": -1.0}, {"label_smoothing": 0.5}])
def test_bad_options(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        RobustDPO(**options)
