"""Prefix-RFT: baselines without the hybrid, and the most uncertain tokens of its prefix."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.objective_batches import NAN
from support.sampled_batches import gradient, group, kept, later
from support.second_opinions import agree, table
from torch import Tensor

from onestage.objectives import Scored
from onestage.objectives.grpo import GRPO
from onestage.objectives.prefix_rft import PrefixRFT, hybrids_N

ENTROPY = [0.3, 2.0, 0.1, 1.5, 0.2]
"""Of a prefix of five tokens."""


def one_hinted(prefix: int = 5):
    """Two on their own with rewards 0 and 0.5, then the prefix and the hybrid with 1."""
    return group(
        [0, 0.5, NAN, 1],
        lengths=[1, 2, prefix, 1],
        roles=[0, 0, 1, 0],
        entropy=[3.0, 3.0, 3.0, *ENTROPY, 3.0],
    )


def test_advantages_by_hand() -> None:
    """The baseline is 0.25, of the others. A fifth of five prefix tokens: the most uncertain."""
    objective = PrefixRFT()
    assert objective.asks(False) == {"entropy"}
    found = kept(objective, one_hinted()).remembered["advantage"].tolist()
    assert found == pytest.approx([-0.25, 0.25, 0.25, 0, 0.75, 0, 0, 0, 0.75])


@pytest.mark.parametrize(
    ("share", "trained"),
    [(0.0, []), (0.2, [1]), (0.3, [1, 3]), (0.6, [0, 1, 3]), (1.0, [0, 1, 2, 3, 4])],
)
def test_the_share_is_rounded_up(share: float, trained: list[int]) -> None:
    objective = PrefixRFT(top_entropy=share)
    prefix = kept(objective, one_hinted()).remembered["advantage"][3:8].tolist()
    assert [n for n, value in enumerate(prefix) if value] == trained


def test_the_prefix_is_in_the_clipped_surrogate() -> None:
    """Its token counts by its ratio to the policy's own old probability, over length 10, three units."""
    objective = PrefixRFT(max_completion_length=10)
    batch = kept(objective, one_hinted(), again=True)
    assert objective.units(batch.feedback).count.item() == 3
    ratios = [1.0, 1.0, 1.0, 1.0, 1.1, 1.0, 1.0, 1.0, 1.0]
    slopes = gradient(objective, later(batch, ratios))
    assert slopes[3:8] == pytest.approx([0, -0.75 * 1.1 / 30, 0, 0, 0])
    ratios[4] = 1.3
    assert gradient(objective, later(batch, ratios))[4] == 0


def test_two_groups_and_ties_of_entropy() -> None:
    objective = PrefixRFT(top_entropy=0.5)
    batch = group(
        *([0, NAN, 1], [1, NAN, 0]),
        lengths=[1, 4, 1, 1, 2, 1],
        roles=[0, 1, 0] * 2,
        entropy=[9, 1, 1, 1, 1, 9, 9, 0.5, 0.6, 9],
    )
    found = kept(objective, batch).remembered["advantage"].tolist()
    assert found == pytest.approx([0, 1, 1, 0, 0, 1, 0, 0, -1, -1])


def test_hybrids_are_those_behind_the_hint() -> None:
    roles = [0, 0, 1, 0, 2]
    batch = group([0, 0, NAN, 0, 1], [0, 0], [NAN, 0, 0], roles=[*roles, 0, 0, 1, 0, 0])
    want = [0, 0, 0, 1, 0, 0, 0, 0, 1, 1]
    assert hybrids_N(batch.feedback).long().tolist() == want


def test_where_all_are_hinted_the_group_is_its_own_baseline() -> None:
    batch = group([NAN, 1, 0], roles=[1, 0, 0], entropy=1.0)
    found = kept(PrefixRFT(), batch).remembered["advantage"]
    assert found.tolist() == pytest.approx([0, 0.5, -0.5])


def test_without_a_hint_it_is_dr_grpo() -> None:
    batch = group([1, 0, 0.1], lengths=[2, 1, 3], entropy=1.0)
    plain, mine = GRPO(loss_type="dr_grpo", scale_rewards="none"), PrefixRFT()
    assert torch.equal(plain(kept(plain, batch)).loss_U, mine(kept(mine, batch)).loss_U)


def test_kl_and_entropy_are_of_what_was_sampled() -> None:
    """A prefix none of whose tokens is reinforced has no loss and no gradient at all."""
    objective = PrefixRFT(beta=0.1, entropy_coef=0.1, top_entropy=0.0)
    batch = replace(one_hinted(), ref_logp_K=torch.full((9,), -2.0, dtype=torch.float64))
    batch = kept(objective, batch)
    assert objective(batch).loss_U[2].item() == 0
    slopes = gradient(objective, batch)
    assert slopes[3:8] == [0.0] * 5
    assert all(slopes[:3])


def test_the_authors_loss() -> None:
    """After an update: `recipe/prefix_rft` of ZeroYuHuang/prefix_rft, `dr_grpo_prefix` with the
    reshaper `entropy` (the lower `int(0.8 n)` of a prefix's tokens have no advantage) and `dr_grpo`
    sums. The hybrid's own tokens are the paper's here: their code compares it with the others of its
    prefix, of which there are none, so that its reward is its advantage. (Their
    `compute_dr_grpo_prefix_outcome_advantage` and `compute_policy_loss`, run beside this, give the
    same to 1e-5 in float64, the hybrid's own tokens apart.)"""
    objective = PrefixRFT(max_completion_length=10)
    draw = torch.Generator().manual_seed(7)
    before = one_hinted()
    batch = later(
        kept(objective, before, again=True), (0.6 + torch.rand(9, generator=draw)).tolist()
    )

    def theirs(batch: Scored) -> Tensor:
        alone, own = torch.tensor([0.0, 0.5], dtype=torch.float64), 1.0
        advantage = torch.zeros(4, 5, dtype=torch.float64)
        advantage[:2] = (alone - alone.mean())[:, None]
        advantage[2:] = own - alone.mean()
        lower = torch.tensor(ENTROPY).argsort()[: int(0.8 * 5)]
        advantage[2, lower] = 0.0
        tokens = table(batch, torch.ones_like(batch.logp_K))
        ratio = torch.exp(table(batch, batch.logp_K) - table(batch, before.logp_K))
        clipped = torch.max(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.2))
        return (clipped * tokens).sum() / 10

    agree(objective, batch, theirs)
