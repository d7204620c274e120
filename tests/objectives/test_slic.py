"""SLiC's hinge against hand arithmetic, TRL's own losses, and DPO's gradient at the start."""

from __future__ import annotations

import pytest
import torch
from support.objective_batches import NAN, scored
from support.second_opinions import agree, some_pairs, trl_cpo, trl_dpo

from onestage.objectives._trial import slope_K
from onestage.objectives.dpo import DPO
from onestage.objectives.slic import SLiC


def test_by_hand() -> None:
    """Margins of 3 and of 12 nats at beta 0.1: 1 - 0.3, and nothing left to learn."""
    batch = scored([("pair", [NAN, NAN])] * 2, log_ratios=[2.0, -1.0, 8.0, -4.0])
    assert SLiC()(batch).loss_U.tolist() == pytest.approx([0.7, 0.0], abs=1e-6)


def test_a_pair_that_leads_by_enough_has_no_gradient() -> None:
    batch = scored([("pair", [NAN, NAN])], log_ratios=[8.0, -4.0])
    assert not bool(slope_K(SLiC(), batch).any())


def test_at_the_start_its_gradient_is_twice_that_of_dpo() -> None:
    """sigma(0) = 1/2 is the slope of DPO's loss, 1 that of the hinge."""
    batch = scored([("pair", [NAN, NAN])] * 2, log_ratios=[0.0] * 4, seed=2)
    torch.testing.assert_close(slope_K(SLiC(), batch), 2 * slope_K(DPO(), batch))


def test_trl_says_the_same() -> None:
    agree(SLiC(beta=0.3), some_pairs(), trl_dpo("hinge", 0.3))
    agree(SLiC(beta=0.3, against="nothing"), some_pairs(), trl_cpo("hinge", 0.3, cpo_alpha=0.0))


def test_without_a_reference_none_is_needed() -> None:
    objective = SLiC(against="nothing")
    assert objective.needs == {"logp"}
    assert SLiC().needs == {"logp", "reference"}


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="beta"):
        SLiC(beta=0.0)
