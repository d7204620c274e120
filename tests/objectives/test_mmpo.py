"""MMPO against hand arithmetic, its minimum, its limits, and TRL's smoothed loss."""

from __future__ import annotations

import math

import pytest
import torch
from support.objective_batches import scored
from support.second_opinions import agree, some_pairs, trl_dpo

from onestage.objectives._trial import slope_K
from onestage.objectives.dpo import DPO
from onestage.objectives.mmpo import MMPO


def judged(chosen: float, rejected: float, *log_ratios: float):
    return scored([("pair", [chosen, rejected])], log_ratios=log_ratios, dtype=torch.float64)


def test_by_hand() -> None:
    """Scores half the scale apart at gamma 2: p = sigma(1). Rewards 0.3 apart."""
    loss = MMPO(beta=0.1, gamma=2.0)(judged(0.75, 0.25, 2.0, -1.0))
    p = 1 / (1 + math.exp(-1))
    want = p * math.log1p(math.exp(-0.3)) + (1 - p) * math.log1p(math.exp(0.3))
    assert loss.loss_U.item() == pytest.approx(want, rel=1e-6)


def test_it_rests_where_the_rewards_are_as_far_apart_as_the_scores() -> None:
    """h = gamma (s_w - s_l) = 1 at a margin of 10 nats; equal scores at a margin of 0."""
    objective = MMPO(beta=0.1, gamma=2.0)
    for batch in (judged(0.75, 0.25, 6.0, -4.0), judged(0.5, 0.5, 3.0, 3.0)):
        assert slope_K(objective, batch).abs().max() < 1e-8


def test_without_scores_it_is_dpo() -> None:
    batch = some_pairs()
    assert torch.equal(MMPO(beta=0.1)(batch).loss_U, DPO()(batch).loss_U)


def test_trl_says_the_same() -> None:
    """TRL's smoothed loss (`aot` of one pair) is the same with 1 - p in the place of its smoothing."""
    smoothing = 1 - float(torch.sigmoid(torch.tensor(2.0 * 0.5)))
    batch = scored([("pair", [0.75, 0.25])] * 3, seed=3, dtype=torch.float64)
    agree(MMPO(beta=0.3, gamma=2.0), batch, trl_dpo("aot", 0.3, label_smoothing=smoothing))


@pytest.mark.parametrize("options", [{"beta": 0.0}, {"gamma": 0.0}])
def test_bad_options(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        MMPO(**options)
