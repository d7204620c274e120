"""DPO-positive against hand arithmetic, its limit DPO, and the paper's equation written anew."""

from __future__ import annotations

import math

import pytest
import torch
from support.objective_batches import NAN, scored
from support.second_opinions import agree, sides, some_pairs
from torch import Tensor

from onestage.objectives import Scored
from onestage.objectives.dpo import DPO
from onestage.objectives.dpop import DPOP


def test_by_hand() -> None:
    """The chosen side lost 1 nat, the rejected one 3: beta (-1 + 3 - 5 x 1) = -0.9."""
    loss = DPOP(beta=0.3, penalty=5.0)(scored([("pair", [NAN, NAN])], log_ratios=[-1.0, -3.0]))
    assert loss.loss_U.item() == pytest.approx(math.log1p(math.exp(0.9)), rel=1e-6)


def test_a_chosen_side_that_gained_has_no_penalty() -> None:
    batch = scored([("pair", [NAN, NAN])], log_ratios=[1.0, -3.0])
    assert torch.equal(DPOP()(batch).loss_U, DPO(beta=0.3)(batch).loss_U)


def by_ratios(batch: Scored) -> Tensor:
    """From ratios of probabilities, in the paper's order, pair by pair. (The authors released no code.
    Of others', PaddleNLP's is this equation, and agrees to 1e-5 in float64; those that put the penalty
    outside of the logarithm, as its older one and LLaMA2-Accessory do, have another loss.)"""
    found = []
    for pair in range(len(batch.feedback.pair_P2)):
        new = [side.sum().exp() for side in sides(batch, pair, batch.logp_K)]
        old = [side.sum().exp() for side in sides(batch, pair, batch.ref_logp_K)]
        penalty = torch.relu(torch.log(old[0] / new[0]))
        inner = torch.log(new[0] / old[0]) - torch.log(new[1] / old[1]) - 2.0 * penalty
        found.append(torch.log(1 + torch.exp(-0.3 * inner)))
    return torch.stack(found)


def test_the_papers_equation() -> None:
    agree(DPOP(penalty=2.0), some_pairs(6), by_ratios)


@pytest.mark.parametrize("options", [{"beta": 0.0}, {"penalty": -1.0}])
def test_bad_options(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        DPOP(**options)
