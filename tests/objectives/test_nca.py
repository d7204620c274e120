"""NCA against hand arithmetic, where it comes to rest, and TRL's own loss."""

from __future__ import annotations

import math

import pytest
import torch
from support.objective_batches import NAN, scored
from support.second_opinions import agree, some_pairs, trl_dpo

from onestage.objectives._trial import slope_K
from onestage.objectives.nca import NCA


def test_by_hand() -> None:
    """Rewards of 0.2 and -0.1: three terms, one of them whole."""
    loss = NCA(beta=0.1)(scored([("pair", [NAN, NAN])], log_ratios=[2.0, -1.0]))
    up, down = math.log1p(math.exp(-0.2)), math.log1p(math.exp(0.2))
    assert loss.loss_U.item() == pytest.approx(
        up + down / 2 + math.log1p(math.exp(-0.1)) / 2, rel=1e-5
    )


def test_the_chosen_side_rests_at_log_2() -> None:
    """-(1 - s) + s / 2 = 0 at s = sigma(r) = 2/3."""
    batch = scored([("pair", [NAN, NAN])], log_ratios=[10 * math.log(2), 0.0], dtype=torch.float64)
    slope = slope_K(NCA(beta=0.1), batch)
    assert slope[batch.response_K == 0].abs().max() < 1e-9
    assert bool((slope[batch.response_K == 1] > 0).all())


def test_trl_says_the_same() -> None:
    agree(NCA(beta=0.3), some_pairs(), trl_dpo("nca_pair", 0.3))


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="beta"):
        NCA(beta=0.0)
