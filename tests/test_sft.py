"""SFT against hand arithmetic."""

from __future__ import annotations

import pytest
import torch
from objective_batches import NAN, scored

from onestage.objectives.sft import SFT


def batch():
    kinds = [("demonstration", [NAN]), ("pair", [NAN, NAN]), ("label", [0.0]), ("score", [0.7])]
    return scored(kinds, lengths=[3, 1, 2, 2, 4], seed=3)


def test_token_mean_by_hand() -> None:
    """The demonstration's 3 tokens and the chosen answer's 1; not the rejected, not the thumb down."""
    loss = SFT()(batch())
    logp_K = batch().logp_K
    want = -(logp_K[:3].sum() + logp_K[3]) / 4
    assert (loss.loss_U.sum() / SFT().count(batch().feedback)).item() == pytest.approx(want.item())


def test_sum_by_hand() -> None:
    """One unit a response: (sum over 3 tokens + 1 token) / 2."""
    objective = SFT(reduction="sum")
    logp_K = batch().logp_K
    want = -(logp_K[:3].sum() + logp_K[3]) / 2
    mean = objective(batch()).loss_U.sum() / objective.count(batch().feedback)
    assert mean.item() == pytest.approx(want.item())


def test_min_score_decides_what_is_imitated() -> None:
    assert "score" not in SFT().kinds
    assert "score" in SFT(min_score=0.5).kinds
    assert SFT(min_score=0.5).count(batch().feedback).item() == 4 + 4
    assert SFT(min_score=0.8).count(batch().feedback).item() == 4


def test_the_gradient_raises_the_good_and_leaves_the_rest() -> None:
    given = batch()
    logp_K = given.logp_K.clone().requires_grad_()
    loss = SFT()(type(given)(given.feedback, logp_K, given.ref_logp_K, given.response_K))
    loss.loss_U.sum().backward()
    good_K = torch.isin(given.response_K, torch.tensor([0, 1]))
    assert bool((logp_K.grad[good_K] < 0).all())
    assert bool((logp_K.grad[~good_K] == 0).all())
