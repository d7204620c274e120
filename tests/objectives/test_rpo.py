"""DPO with likelihood against hand arithmetic, its two limits, and TRL's own losses."""

from __future__ import annotations

import math

import pytest
import torch
from support.objective_batches import NAN, scored
from support.second_opinions import agree, some_pairs, trl_dpo

from onestage.objectives.dpo import DPO
from onestage.objectives.rpo import RPO


def test_by_hand() -> None:
    """Log-ratios 2 and -1 at beta 0.1; the chosen side's two tokens have -1 and -3: a mean of -2."""
    batch = scored([("pair", [NAN, NAN])], lengths=[2, 1])
    batch.logp_K[:] = torch.tensor([-1.0, -3.0, -4.0])
    batch.ref_logp_K[:] = torch.tensor([-2.0, -4.0, -3.0])
    want = math.log1p(math.exp(-0.3)) + 0.5 * 2.0
    assert RPO(sft_coef=0.5)(batch).mean().item() == pytest.approx(want, rel=1e-6)


def test_without_likelihood_it_is_dpo() -> None:
    batch = some_pairs()
    assert torch.equal(RPO(sft_coef=0.0)(batch).loss_U, DPO()(batch).loss_U)


def test_trl_says_the_same() -> None:
    theirs = trl_dpo(["sigmoid", "sft"], 0.3, loss_weights=[1.0, 0.7])
    agree(RPO(beta=0.3, sft_coef=0.7), some_pairs(), theirs)


@pytest.mark.parametrize("options", [{"beta": 0.0}, {"sft_coef": -1.0}])
def test_bad_options(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        RPO(**options)
