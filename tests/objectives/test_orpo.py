"""ORPO against hand arithmetic, its limit, and TRL's own loss."""

from __future__ import annotations

import math

import pytest
import torch
from support.objective_batches import NAN, scored
from support.second_opinions import agree, some_pairs, trl_orpo

from onestage.objectives.orpo import ORPO
from onestage.objectives.sft import SFT


def test_by_hand() -> None:
    """Probabilities a token of 1/2 and 1/4: odds of 1 and 1/3, log sigma(log 3) = log(3/4)."""
    batch = scored([("pair", [NAN, NAN])], lengths=[2, 3])
    batch.logp_K[:] = torch.tensor([0.5] * 2 + [0.25] * 3).log()
    want = math.log(2) - 0.1 * math.log(0.75)
    assert ORPO()(batch).mean().item() == pytest.approx(want, rel=1e-6)


def test_without_the_ratio_it_is_sft_on_the_chosen_side() -> None:
    batch = scored([("pair", [NAN, NAN])] * 2, lengths=[3, 1, 3, 2], seed=5)
    assert ORPO(beta=0.0)(batch).mean().item() == pytest.approx(SFT()(batch).mean().item())


def test_trl_says_the_same() -> None:
    """Log-probabilities below 0, as of real tokens: TRL's log(1 - exp) has no other."""
    batch = some_pairs()
    batch.logp_K.clamp_(max=-0.05)
    agree(ORPO(beta=0.4), batch, trl_orpo(0.4))


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="beta"):
        ORPO(beta=-0.1)
