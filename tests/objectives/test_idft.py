"""In-distribution fine-tuning: by hand, its limits, and the authors' loss from logits, written anew."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from support.objective_batches import NAN, scored
from support.second_opinions import agree
from torch import Tensor

from onestage.models.head import token_logps_and_entropy
from onestage.objectives import Scored
from onestage.objectives.idft import IDFT
from onestage.objectives.sft import SFT

ONE = [("demonstration", [NAN])]


def test_by_hand() -> None:
    """log p + H of 0, of 5 and of -5 nats: g of 1, of .1 and of 2."""
    batch = scored(ONE, lengths=[3])
    batch.logp_K[:] = torch.tensor([-1.0, -1.0, -6.0])
    batch = replace(batch, extra={"entropy": torch.tensor([1.0, 6.0, 1.0])})
    want = [math.exp(-1), math.exp(-0.1), 6 * math.exp(-12)]
    assert IDFT()(batch).loss_U.tolist() == pytest.approx(want, rel=1e-5)


def test_its_limits_are_sft_and_dft() -> None:
    batch = scored(ONE * 3, seed=2)
    batch.logp_K.clamp_(max=-0.1)
    flat, one = IDFT(gamma_min=0.0, gamma_max=0.0), IDFT(gamma_min=1.0, gamma_max=1.0)
    torch.testing.assert_close(flat(batch).loss_U, SFT()(batch).loss_U)
    torch.testing.assert_close(one(batch).loss_U, SFT(reweight="dft")(batch).loss_U)


def test_no_gradient_goes_through_the_weight() -> None:
    """Not even where it is made of an entropy that has one."""

    def theirs(batch: Scored) -> Tensor:
        pairs = zip(batch.logp_K.tolist(), batch.extra["entropy"].tolist(), strict=True)
        gamma = [(x, min(max(math.exp(-(x + h) / 0.7), 0.2), 1.5)) for x, h in pairs]
        weight = torch.tensor([math.exp(g * min(x, 0.0)) for x, g in gamma], dtype=torch.float64)
        return -weight * batch.logp_K

    batch = scored(ONE * 3, seed=4, dtype=torch.float64)
    entropy_K = batch.extra["entropy"].requires_grad_()
    objective = IDFT(beta=0.7, gamma_min=0.2, gamma_max=1.5)
    agree(objective, batch, theirs)
    assert not objective(batch).loss_U.requires_grad
    assert entropy_K.grad is None


def test_the_authors_loss_from_logits_and_its_gradient() -> None:
    """After their transition: probabilities to a power between 0.1 and 2, detached, times the log."""
    draw = torch.Generator().manual_seed(0)
    states, weight = (torch.randn(n, 8, generator=draw) for n in (4, 30))
    states.requires_grad_()
    target = torch.tensor([3, 0, 29, 7])
    chance = torch.softmax(states @ weight.t(), -1)
    mine = chance.gather(1, target[:, None])[:, 0]
    above = mine.log() - (chance * (chance + 1e-10).log()).sum(-1)
    power = torch.exp(-above).clamp(0.1, 2.0)
    theirs = -((mine**power).detach()) * mine.log()
    (want,) = torch.autograd.grad(theirs.sum(), states)

    logp, entropy = token_logps_and_entropy(states, weight, target)
    batch = replace(scored(ONE, lengths=[4]), logp_K=logp, extra={"entropy": entropy})
    loss = IDFT()(batch).loss_U
    torch.testing.assert_close(loss, theirs, rtol=1e-5, atol=1e-7)
    (found,) = torch.autograd.grad(loss.sum(), states)
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", [{"beta": 0.0}, {"gamma_min": 3.0}])
def test_bad_options(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        IDFT(**options)
