"""SimPO against hand arithmetic, TRL's own loss, and the limit that it shares with DPO."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from support.objective_batches import NAN, scored

from onestage.objectives.dpo import DPO
from onestage.objectives.simpo import SimPO

PAIRS = [("pair", [NAN, NAN]), ("pair", [NAN, NAN]), ("pair", [NAN, NAN])]


def test_by_hand() -> None:
    """Means of -1 and -3 a token: -log sigma(2 (2 - 0.25)) = log(1 + exp(-3.5)) = 0.029750."""
    batch = scored([("pair", [NAN, NAN])], lengths=[4, 2])
    batch.logp_K[:] = torch.tensor([-1.0, -1, -1, -1, -3, -3])
    assert SimPO()(batch).mean().item() == pytest.approx(0.029750, abs=1e-6)


def test_the_reference_does_not_matter() -> None:
    batch, other = scored(PAIRS, seed=1), scored(PAIRS, seed=1)
    other.ref_logp_K[:] = -7.0
    assert torch.equal(SimPO()(batch).loss_U, SimPO()(other).loss_U)


def test_one_token_and_no_margin_are_dpo_without_a_reference() -> None:
    batch = scored(PAIRS, lengths=[1] * 6)
    batch.ref_logp_K[:] = 0.0
    mine, theirs = SimPO(beta=0.7, gamma_beta_ratio=0.0)(batch), DPO(beta=0.7)(batch)
    assert torch.allclose(mine.loss_U, theirs.loss_U, rtol=1e-6)


def test_trl_says_the_same() -> None:
    """Loss and gradient of TRL's CPO trainer with `loss_type="simpo"`."""
    cpo = pytest.importorskip("trl.experimental.cpo.cpo_trainer")
    batch = scored(PAIRS, seed=3, dtype=torch.float64)
    batch.logp_K.requires_grad_()
    mean_N = torch.zeros(6, dtype=torch.float64).index_add(0, batch.response_K, batch.logp_K)
    mean_N = mean_N / batch.feedback.tokens_N
    settings = SimpleNamespace(alpha=0.0, loss_type="simpo", beta=2.5, simpo_gamma=1.5)
    settings.label_smoothing, settings.accelerator = 0.0, SimpleNamespace(device="cpu")
    theirs_P, _, _ = cpo.CPOTrainer.cpo_loss(settings, mean_N[0::2], mean_N[1::2])
    (theirs_K,) = torch.autograd.grad(theirs_P.sum(), batch.logp_K)
    mine = SimPO(beta=2.5, gamma_beta_ratio=0.6)(batch)
    (mine_K,) = torch.autograd.grad(mine.loss_U.sum(), batch.logp_K)
    assert torch.allclose(mine.loss_U.double(), theirs_P, rtol=1e-5)
    assert torch.allclose(mine_K, theirs_K, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("options", [{"beta": 0.0}, {"gamma_beta_ratio": -1.0}])
def test_bad_options(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        SimPO(**options)
