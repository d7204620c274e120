"""SFT against hand arithmetic."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from support.objective_batches import NAN, scored

from onestage.objectives.sft import SFT


def batch():
    kinds = [("demonstration", [NAN]), ("pair", [NAN, NAN]), ("label", [0.0]), ("score", [0.7])]
    return scored(kinds, lengths=[3, 1, 2, 2, 4], seed=3)


def test_token_mean_by_hand() -> None:
    """The demonstration's 3 tokens and the chosen answer's 1; not the rejected, not the thumb down."""
    loss = SFT()(batch())
    logp_K = batch().logp_K
    want = -(logp_K[:3].sum() + logp_K[3]) / 4
    assert (loss.loss_U.sum() / SFT().units(batch().feedback).count).item() == pytest.approx(
        want.item()
    )


def test_sum_by_hand() -> None:
    """One unit a response: (sum over 3 tokens + 1 token) / 2."""
    objective = SFT(reduction="sum")
    logp_K = batch().logp_K
    want = -(logp_K[:3].sum() + logp_K[3]) / 2
    mean = objective(batch()).loss_U.sum() / objective.units(batch().feedback).count
    assert mean.item() == pytest.approx(want.item())


def test_min_score_decides_what_is_imitated() -> None:
    assert "score" not in SFT().kinds
    assert "score" in SFT(min_score=0.5).kinds
    assert SFT(min_score=0.5).units(batch().feedback).count.item() == 4 + 4
    assert SFT(min_score=0.8).units(batch().feedback).count.item() == 4


def test_the_gradient_raises_the_good_and_leaves_the_rest() -> None:
    given = batch()
    logp_K = given.logp_K.clone().requires_grad_()
    loss = SFT()(type(given)(given.feedback, logp_K, given.ref_logp_K, given.response_K))
    loss.loss_U.sum().backward()
    good_K = torch.isin(given.response_K, torch.tensor([0, 1]))
    assert bool((logp_K.grad[good_K] < 0).all())
    assert bool((logp_K.grad[~good_K] == 0).all())


def sampled():
    """A hint, rewards 1, 0.1 and -0.5, a worked answer; two tokens each."""
    scores = [NAN, 1.0, 0.1, -0.5, 1.0]
    return scored([("check", scores)], lengths=[2] * 5, roles=[1, 0, 0, 0, 2], seed=4)


@pytest.mark.parametrize(
    ("least", "imitated"), [(1.0, [1]), (0.1, [1, 2]), (float("-inf"), [1, 2, 3])]
)
def test_rejection_sampling_imitates_what_was_sampled_and_good(
    least: float, imitated: list[int]
) -> None:
    """Never the hint, which nobody sampled, nor the worked answer."""
    given, objective = sampled(), SFT(min_score=least)
    assert "check" in objective.kinds
    assert "check" not in SFT().kinds
    assert objective.units(given.feedback).count.item() == 2 * len(imitated)
    logp_K = given.logp_K.clone().requires_grad_()
    objective(replace(given, logp_K=logp_K)).loss_U.sum().backward()
    taught = torch.isin(given.response_K, torch.tensor(imitated))
    assert logp_K.grad.tolist() == [-1.0 if one else 0.0 for one in taught.tolist()]


@pytest.mark.parametrize("reduction", ["token", "sum"])
@pytest.mark.parametrize(
    ("reweight", "factor"),
    [("none", lambda p: 1), ("dft", lambda p: p), ("chord", lambda p: p - p * p)],
)
def test_reweighting_by_hand(reweight: str, factor, reduction: str) -> None:
    """-f(p) log p, f without gradient; the mean is over as much as without weights."""
    given = scored([("demonstration", [NAN])] * 2, lengths=[2, 1], seed=6)
    p_K = torch.tensor([0.9, 0.5, 0.02])
    logp_K = p_K.log().requires_grad_()
    objective = SFT(reweight=reweight, reduction=reduction)
    batch = replace(given, logp_K=logp_K)
    size = 3 if reduction == "token" else 2
    loss = objective(batch).loss_U.sum() / objective.units(batch.feedback).count
    want = [-factor(p) / size for p in p_K.tolist()]
    assert loss.item() == pytest.approx(
        sum(w * math.log(p) for w, p in zip(want, p_K.tolist(), strict=True)), rel=1e-5
    )
    loss.backward()
    assert logp_K.grad.tolist() == pytest.approx(want, rel=1e-5)
