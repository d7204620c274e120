"""CPO against hand arithmetic, the limit that it shares with DPO, and TRL's own loss."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from support.objective_batches import NAN, scored
from support.second_opinions import agree, some_pairs, trl_cpo

from onestage.objectives.cpo import CPO
from onestage.objectives.dpo import DPO


def test_by_hand() -> None:
    """Sums of -4 and -7 at beta 0.1, and a mean of -2 a chosen token."""
    batch = scored([("pair", [NAN, NAN])], lengths=[2, 1])
    batch.logp_K[:] = torch.tensor([-1.0, -3.0, -7.0])
    want = math.log1p(math.exp(-0.3)) + 0.5 * 2.0
    assert CPO(sft_coef=0.5)(batch).mean().item() == pytest.approx(want, rel=1e-6)


def test_without_likelihood_it_is_dpo_with_a_uniform_reference() -> None:
    batch = some_pairs()
    uniform = replace(batch, ref_logp_K=torch.zeros_like(batch.ref_logp_K))
    assert torch.equal(CPO(sft_coef=0.0)(batch).loss_U, DPO()(uniform).loss_U)


def test_trl_says_the_same() -> None:
    agree(CPO(beta=0.3, sft_coef=0.6), some_pairs(), trl_cpo("sigmoid", 0.3, cpo_alpha=0.6))


@pytest.mark.parametrize("options", [{"beta": 0.0}, {"sft_coef": -1.0}])
def test_bad_options(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        CPO(**options)
