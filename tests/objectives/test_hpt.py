"""HPT: the gate between reinforcement and imitation, and both sides by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.objective_batches import NAN, subset
from support.sampled_batches import gradient, group, kept, later, mean
from support.second_opinions import agree, masked_mean, table
from torch import Tensor

from onestage.objectives import Scored
from onestage.objectives.grpo import GRPO
from onestage.objectives.hpt import HPT

PLAIN: dict[str, Any] = {"entropy_coef": 0.0, "max_completion_length": 10}


def test_a_solved_problem_is_reinforced_and_an_unsolved_one_imitated() -> None:
    """One of two right against none: A = +-0.5 and nothing of the worked; NLL and nothing sampled."""
    objective = HPT(**PLAIN)
    batch = group(
        *([1, 0, 1], [0.1, 0, 1]), roles=[0, 0, 2] * 2, lengths=[1, 1, 2, 1, 1, 3], logp=-0.7
    )
    batch = kept(objective, batch)
    assert objective.units(batch.feedback).count.item() == 4
    want = [-0.5, 0.5, 0, 0, 0, 0, -1, -1, -1]
    assert gradient(objective, batch) == pytest.approx([slope / 10 / 4 for slope in want])
    assert mean(objective, batch) == pytest.approx(3 * 0.7 / 10 / 4)
    assert objective(batch).metrics["imitated"].value_M.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("right", "gate", "imitated"), [(0, 0, True), (1, 0, False), (2, 2, True), (3, 2, False)]
)
def test_the_gate(right: int, gate: int, imitated: bool) -> None:
    objective = HPT(gate=gate, **PLAIN)
    batch = group([1.0] * right + [0.1] * (8 - right) + [1.0], roles=[0] * 8 + [2])
    slopes = gradient(objective, kept(objective, batch))
    assert (slopes[8] != 0) == imitated
    assert any(slopes[:8]) == (not imitated)


def test_a_dropped_group_has_no_entropy_bonus() -> None:
    objective = HPT(entropy_coef=0.5, max_completion_length=1)
    some = group([0, 1], [1, 1], roles=[0, 2] * 2, entropy=[1.0, 9.0, 2.0, 9.0])
    losses = objective(kept(objective, some)).loss_U.tolist()
    assert losses == pytest.approx([0.0, 1.0, -1.0, 0.0])


def test_without_a_worked_answer_it_is_dr_grpo() -> None:
    batch = group([NAN, 0.1, 0], [1, 0], lengths=[2, 1, 2, 1, 1], roles=[1, 0, 0, 0, 0])
    plain = GRPO(loss_type="dr_grpo", scale_rewards="none", epsilon=None, max_completion_length=10)
    mine = HPT(**PLAIN)
    assert gradient(mine, kept(mine, batch)) == gradient(plain, kept(plain, batch))


def test_the_decision_is_of_each_problem_alone() -> None:
    objective = HPT(**PLAIN)
    batch = kept(objective, group([1, 0, 1], [0, 0, 1], roles=[0, 0, 2] * 2))
    parts = [objective(subset(batch, [number])).loss_U.tolist() for number in (0, 1)]
    assert [*parts[0], *parts[1]] == objective(batch).loss_U.tolist()


def test_the_coefficient_of_imitation() -> None:
    batch = group([0, 1], roles=[0, 2], logp=-0.5)
    objective = HPT(sft_coef=0.3, **PLAIN)
    assert mean(objective, kept(objective, batch)) == pytest.approx(0.3 * 0.5 / 10)


def test_the_authors_loss() -> None:
    """One problem of two is solved once, the other never; after an update. Theirs
    (`mix_src/mix_actor.py` of TsinghuaC3I/Unify-Post-Training, `offline_loss_type: sft`) sums the
    surrogate over the greatest length, but takes the mean of the imitated tokens: times their number
    over that length it is ours. (Their own `compute_sft_pure_loss` and `compute_policy_loss`, run
    beside this, give the same to 1e-5 in float64.)"""
    objective = HPT(sft_coef=0.3, **PLAIN)
    lengths, draw = [2, 1, 3, 2, 4, 3], torch.Generator().manual_seed(5)
    batch = group([1, 0.1, 1], [0, 0.1, 1], roles=[0, 0, 2] * 2, lengths=lengths, logp=-0.9)
    batch = later(
        kept(objective, batch, again=True), (0.5 + torch.rand(15, generator=draw)).tolist()
    )

    def theirs(batch: Scored) -> Tensor:
        tokens, logp = table(batch, torch.ones_like(batch.logp_K)), table(batch, batch.logp_K)
        sampled, imitated = slice(0, 2), slice(5, 6)  # rows: what the switch has left
        advantage = torch.tensor([[0.45], [-0.45]], dtype=torch.float64)
        ratio = torch.exp(logp[sampled] + 0.9)
        reinforced = (-advantage * ratio * tokens[sampled]).sum() / 10
        likelihood = masked_mean(-logp[imitated], tokens[imitated])
        return reinforced + 0.3 * likelihood * (tokens[imitated].sum() / 10)

    agree(objective, batch, theirs)
