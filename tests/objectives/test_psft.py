"""Proximal SFT: by hand, as SFT at the start, and as PPO's own surrogate."""

from __future__ import annotations

import math

import pytest
import torch
from support.objective_batches import NAN, scored
from support.second_opinions import agree
from torch import Tensor

from onestage.objectives import Scored
from onestage.objectives._trial import slope_K
from onestage.objectives.psft import PSFT
from onestage.objectives.sft import SFT

ONE = [("demonstration", [NAN])]


def test_by_hand() -> None:
    """Half as likely, as likely, and twice as likely as the reference: 1.28 less 1/2, 1 and 1.28."""
    batch = scored(ONE, lengths=[3])
    batch.logp_K[:] = batch.ref_logp_K + torch.tensor([math.log(0.5), 0.0, math.log(2.0)])
    assert PSFT()(batch).loss_U.tolist() == pytest.approx([0.78, 0.28, 0.0], abs=1e-6)
    assert PSFT()(batch).metrics["clip_rate"].value_M.tolist() == pytest.approx([1 / 3])
    assert slope_K(PSFT(), batch).tolist() == pytest.approx([-0.5, -1.0, 0.0], abs=1e-6)


def test_at_the_start_it_is_sft() -> None:
    batch = scored(ONE * 2, log_ratios=[0.0, 0.0], seed=2)
    torch.testing.assert_close(slope_K(PSFT(), batch), slope_K(SFT(), batch))


def test_the_clipped_surrogate_of_ppo() -> None:
    """With advantage 1, and the lower clip that never acts; up to a constant. (The authors' own
    `compute_policy_loss`, run beside this, gives the same to 1e-5 in float64.)"""

    def theirs(batch: Scored) -> Tensor:
        ratio = torch.exp(batch.logp_K - batch.ref_logp_K)
        return 1.28 - torch.minimum(ratio, torch.clamp(ratio, 1 - 0.2, 1 + 0.28))

    agree(PSFT(), scored(ONE * 3, seed=4, dtype=torch.float64), theirs)


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="epsilon"):
        PSFT(epsilon=0.0)
