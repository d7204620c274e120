"""APO against hand arithmetic, TRL's own losses, and KTO without a reference point."""

from __future__ import annotations

import math

import pytest
import torch
from support.objective_batches import NAN, scored
from support.second_opinions import agree, some_pairs, trl_dpo

from onestage.objectives._trial import slope_K
from onestage.objectives.apo import APO
from onestage.objectives.kto import KTO


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize(
    ("anchor", "want"),
    [("zero", 1 - sigma(0.2) + sigma(-0.1)), ("down", sigma(0.2) + 1 - sigma(0.3))],
)
def test_by_hand(anchor: str, want: float) -> None:
    """Rewards of 0.2 and -0.1."""
    loss = APO(anchor=anchor)(scored([("pair", [NAN, NAN])], log_ratios=[2.0, -1.0]))
    assert loss.loss_U.item() == pytest.approx(want, rel=1e-6)


def test_down_lowers_the_chosen_side_too() -> None:
    """At the start: slopes of beta (1/4 - 1/4) on the chosen side, then downwards."""
    batch = scored([("pair", [NAN, NAN])], log_ratios=[2.0, -1.0])
    slope_N = batch.per_response(slope_K(APO(anchor="down"), batch))
    assert slope_N[1] > slope_N[0] > 0
    assert batch.per_response(slope_K(APO(), batch))[0] < 0


def test_zero_is_kto_at_a_reference_point_of_zero() -> None:
    batch = some_pairs()
    mine, theirs = APO()(batch), KTO(baseline="zero")(batch)
    assert mine.loss_U.sum().item() == pytest.approx(theirs.loss_U.sum().item())


@pytest.mark.parametrize("anchor", ["zero", "down"])
def test_trl_says_the_same(anchor: str) -> None:
    agree(APO(beta=0.3, anchor=anchor), some_pairs(), trl_dpo(f"apo_{anchor}", 0.3))


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="beta"):
        APO(beta=0.0)
    assert torch.is_tensor(APO()(some_pairs()).loss_U)
