"""TDPO against hand arithmetic, its limit DPO, and the authors' loss from logits, written anew."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from support.objective_batches import NAN, scored

from onestage.models.distributions import Head, divergences
from onestage.models.head import Shape
from onestage.objectives.dpo import DPO
from onestage.objectives.tdpo import TDPO


def moved(*kl: float):
    """A pair with log-ratios 2 and -1, of a token a side, and these divergences."""
    batch = scored([("pair", [NAN, NAN])], log_ratios=[2.0, -1.0], lengths=[1, 1])
    return replace(batch, extra={"forward_kl": torch.tensor(kl, requires_grad=True)})


def test_by_hand_and_where_gradients_go() -> None:
    """K of 0.4 and 1.4: h = 3 - 1 = 2 for tdpo1, 3 - 1/4 for tdpo2 at alpha 1/4."""
    for objective, margin, chosen in (
        (TDPO(form="tdpo1"), 2.0, True),
        (TDPO(alpha=0.25), 2.75, False),
    ):
        batch = moved(0.4, 1.4)
        loss = objective(batch)
        assert loss.loss_U.item() == pytest.approx(math.log1p(math.exp(-0.1 * margin)), rel=1e-6)
        loss.loss_U.sum().backward()
        slopes = batch.extra["forward_kl"].grad
        assert slopes[1] > 0  # the drift of the rejected side is paid for
        assert bool(slopes[0] < 0) == chosen


def test_without_drift_it_is_dpo() -> None:
    assert TDPO()(moved(0.0, 0.0)).loss_U.tolist() == DPO()(moved(0.0, 0.0)).loss_U.tolist()
    assert (
        TDPO(alpha=0.0)(moved(1.0, 2.0)).loss_U.tolist() == DPO()(moved(0.0, 0.0)).loss_U.tolist()
    )


@pytest.mark.parametrize("form", ["tdpo1", "tdpo2"])
def test_from_logits_to_the_gradient(form: str) -> None:
    """The authors' loss: sums over a side of per-position KL and of log-ratios, then the log-sigmoid."""
    draw = torch.Generator().manual_seed(0)
    states, weight, other = (
        torch.randn(n, 8, generator=draw, dtype=torch.float64) for n in (5, 30, 5)
    )
    states.requires_grad_()
    target = torch.tensor([3, 7, 29, 0, 11])
    p, q = ((x @ weight.t()).log_softmax(-1) for x in (states, other))
    kl, ratio = (q.exp() * (q - p)).sum(-1), (p - q).gather(1, target[:, None])[:, 0]
    (chosen, rejected), (up, down) = ((x[:2].sum(), x[2:].sum()) for x in (kl, ratio))
    drift = rejected - chosen if form == "tdpo1" else 0.5 * (rejected - chosen.detach())
    theirs = torch.log1p(torch.exp(-0.1 * (up - down - drift)))
    (want,) = torch.autograd.grad(theirs, states, retain_graph=True)

    batch = scored([("pair", [NAN, NAN])], lengths=[2, 3], dtype=torch.float64)
    head = Head(weight, None, Shape())
    batch = replace(
        batch,
        logp_K=p.gather(1, target[:, None])[:, 0],
        ref_logp_K=q.gather(1, target[:, None])[:, 0],
        extra=divergences(["forward_kl"], states, head, other, head),
    )
    loss = TDPO(form=form)(batch).loss_U.sum()
    assert loss.item() == pytest.approx(theirs.item(), rel=1e-5)
    (found,) = torch.autograd.grad(loss, states)
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", [{"beta": 0.0}, {"alpha": -1.0}])
def test_bad_options(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        TDPO(**options)
