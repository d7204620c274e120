"""Token-adaptive loss reweighting: by hand, its tau, and DFT as a limiting case."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from support.objective_batches import NAN, scored
from support.second_opinions import agree
from torch import Tensor

from onestage.objectives import Scored
from onestage.objectives.sft import SFT
from onestage.objectives.talr import TALR

ONE = [("demonstration", [NAN])]


def test_by_hand() -> None:
    """Tokens of 1 and of 20 nats at tau 2: e^-1/2, and e^-10 which the floor lifts to .01."""
    batch = scored(ONE, lengths=[2])
    batch.logp_K[:] = torch.tensor([-1.0, -20.0])
    loss = TALR(tau=2.0)(batch)
    assert loss.loss_U.tolist() == pytest.approx([math.exp(-0.5), 0.2], rel=1e-5)
    want = (math.exp(-0.5) + 0.01) / 2
    assert loss.metrics["weight"].value_M.tolist() == pytest.approx([want], rel=1e-5)


def test_tau_follows_what_tokens_cost() -> None:
    """At first that of the response itself, 2 nats a token; then a running mean over steps."""
    batch = scored(ONE, lengths=[2])
    batch.logp_K[:] = torch.tensor([-1.0, -3.0])
    first = TALR()(batch)
    assert first.loss_U.tolist() == pytest.approx([math.exp(-0.5), 3 * math.exp(-1.5)], rel=1e-5)
    assert first.observed == {"cost": (2.0, 1.0)}
    state = TALR().advance(TALR().start(), {"cost": 2.0})
    assert state == {"tau": 2.0}
    assert TALR().advance(state, {"cost": 1.0}) == {"tau": pytest.approx(1.9)}
    later = TALR()(replace(batch, state={"tau": 1.0}))
    assert later.loss_U.tolist() == pytest.approx([math.exp(-1), 3 * math.exp(-3)], rel=1e-5)


def test_only_what_is_good_is_counted() -> None:
    batch = scored([("pair", [NAN, NAN])], lengths=[1, 1])
    batch.logp_K[:] = torch.tensor([-1.0, -9.0])
    assert TALR()(batch).observed == {"cost": (1.0, 1.0)}


def test_at_tau_1_without_a_floor_it_is_dft() -> None:
    batch = scored(ONE * 3, seed=2)
    mine, dft = TALR(tau=1.0, floor=0.0)(batch).loss_U, SFT(reweight="dft")(batch).loss_U
    torch.testing.assert_close(mine[batch.logp_K <= 0], dft[batch.logp_K <= 0])


@pytest.mark.parametrize(("tau", "answers"), [(1.5, 3), (0.4, 3), (None, 1)])
def test_its_gradient_goes_through_the_likelihood_alone(tau: float | None, answers: int) -> None:
    """The paper's weight, whose tau is the median of the answers' mean costs: that of a single one.
    (DiSC's implementation, run beside this, gives the same to 1e-5 in float64; the authors' own is not
    public.)"""

    def theirs(batch: Scored) -> Tensor:
        logp = batch.logp_K.tolist()
        scale = -sum(logp) / len(logp) if tau is None else tau
        weights = [min(max(math.exp(x / scale), 0.05), 1.0) for x in logp]
        return -(torch.tensor(weights, dtype=torch.float64) * batch.logp_K)

    batch = scored(ONE * answers, seed=6, lengths=[4] * answers, dtype=torch.float64)
    agree(TALR(tau=tau, floor=0.05), batch, theirs)


@pytest.mark.parametrize("options", [{"tau": 0.0}, {"floor": 2.0}, {"decay": 1.0}])
def test_bad_options(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        TALR(**options)
