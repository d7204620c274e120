"""Importance-weighted SFT against hand arithmetic, SFT, and the authors' loss written anew."""

from __future__ import annotations

import math

import pytest
import torch
from support.objective_batches import NAN, scored
from support.second_opinions import agree
from torch import Tensor

from onestage.objectives import Scored
from onestage.objectives.iw_sft import ImportanceWeightedSFT
from onestage.objectives.sft import SFT

DEMONSTRATIONS = [("demonstration", [NAN])] * 3


def test_by_hand() -> None:
    """Two tokens of -1 and -3 that were -2 and -5: a mean of 1.5 nats gained, w = e^1.5."""
    batch = scored(DEMONSTRATIONS[:1], lengths=[2])
    batch.logp_K[:] = torch.tensor([-1.0, -3.0])
    batch.ref_logp_K[:] = torch.tensor([-2.0, -5.0])
    want = [math.exp(1.5), 3 * math.exp(1.5)]
    assert ImportanceWeightedSFT()(batch).loss_U.tolist() == pytest.approx(want, rel=1e-5)
    by_token = ImportanceWeightedSFT(level="token")(batch).loss_U.tolist()
    assert by_token == pytest.approx([1.8, 3 * 1.8], rel=1e-6)  # e and e^2, kept below 1.8
    capped = ImportanceWeightedSFT(cap=2.0)(batch)
    assert capped.loss_U.tolist() == pytest.approx([2.0, 6.0], rel=1e-6)
    assert capped.metrics["weight"].value_M.tolist() == pytest.approx([2.0])


def test_at_the_start_it_is_sft() -> None:
    batch = scored(DEMONSTRATIONS, log_ratios=[0.0] * 3, seed=2)
    for level in ("response", "token"):
        mine = ImportanceWeightedSFT(level=level)(batch).loss_U
        assert mine.tolist() == pytest.approx(SFT()(batch).loss_U.tolist())


@pytest.mark.parametrize("level", ["response", "token"])
def test_the_authors_loss(level: str) -> None:
    """Token by token, with the weights as numbers of their own."""

    def theirs(batch: Scored) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for number in range(3):
            logp = batch.logp_K[batch.response_K == number]
            gap = (logp - batch.ref_logp_K[batch.response_K == number]).detach()
            if level == "response":
                weight = torch.full_like(gap, min(math.exp(2 * float(gap.mean())), 4.0))
            else:
                weight = torch.tensor([min(max(math.exp(x), 0.5), 1.5) for x in gap.tolist()])
            total = total - (weight.double() * logp).sum()
        return total

    objective = ImportanceWeightedSFT(level=level, temperature=2.0, cap=4.0, spread=0.5)
    agree(objective, scored(DEMONSTRATIONS, seed=4, dtype=torch.float64), theirs)


@pytest.mark.parametrize("options", [{"temperature": -1.0}, {"cap": 0.5}, {"spread": 1.0}])
def test_bad_options(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        ImportanceWeightedSFT(**options)
