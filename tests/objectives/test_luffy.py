"""LUFFY: the joint group, the shaped likelihood of the worked answer, and what the mean is over."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from support.objective_batches import NAN
from support.sampled_batches import gradient, group, kept, later

from onestage.objectives.luffy import LUFFY

PLAIN = {"entropy_coef": 0.0, "max_completion_length": 10}


def test_the_worked_answer_is_a_member_of_the_group() -> None:
    """Rewards 0, 0.2 and 1 of the worked: the mean is 0.4; a hint has no part."""
    objective = LUFFY()
    assert "worked" in objective.needs
    batch = kept(objective, group([NAN, 0, 0.2, 1], roles=[1, 0, 0, 2], entropy=1.0))
    assert batch.remembered["advantage"].tolist() == pytest.approx([0, -0.4, -0.2, 0.6])
    assert objective.units(batch.feedback).count.item() == 3


def test_the_authors_loss() -> None:
    """Of three sampled answers and a worked one, after an update. (Their own
    `compute_token_on_off_policy_loss`, run beside this, gives the same to 1e-5 in float64.)"""
    rewards, lengths, draw = [0.1, 0.7, 0.4, 1.0], [2, 3, 1, 4], torch.Generator().manual_seed(4)
    old, moved = (torch.rand(10, generator=draw, dtype=torch.float64) for _ in range(2))
    objective = LUFFY(**PLAIN)
    batch = group(rewards, lengths=lengths, roles=[0, 0, 0, 2], logp=(old.log()).tolist())
    batch = later(kept(objective, batch, again=True), (0.5 + moved / 2).tolist())
    p = (old * (0.5 + moved / 2)).requires_grad_()
    advantages = torch.tensor([-0.45, 0.15, -0.15, 0.45]).repeat_interleave(torch.tensor(lengths))
    theirs = -(advantages * torch.where(torch.arange(10) < 6, p / old, p / (p + 0.1))).sum() / 10
    assert objective(batch).loss_U.sum().item() == pytest.approx(theirs.item(), rel=1e-5)
    slopes = torch.autograd.grad(theirs, p)[0] * p.detach() / 4
    assert gradient(objective, batch) == pytest.approx(slopes.tolist(), rel=1e-5, abs=1e-9)


def test_by_hand() -> None:
    """Sampled: -A r without a clip. Worked: -A p / (p + 0.1). Over length 10, three responses."""
    objective = LUFFY(**PLAIN)
    p = [0.5, 0.02]
    logp = [-1.0, -1.0, *map(math.log, p)]
    batch = group([0, 0.2, 1], lengths=[1, 1, 2], roles=[0, 0, 2], logp=logp)
    batch = later(kept(objective, batch, again=True), [3.0, 0.5, 1.0, 1.0])
    shaped = -0.6 * sum(x / (x + 0.1) for x in p)
    assert objective(batch).loss_U.tolist() == pytest.approx(
        [0.4 * 3.0 / 10, 0.2 * 0.5 / 10, shaped / 10]
    )
    slopes = [-0.6 * x * 0.1 / (x + 0.1) ** 2 / 30 for x in p]
    want = [0.4 * 3.0 / 30, 0.2 * 0.5 / 30, *slopes]
    assert gradient(objective, batch) == pytest.approx(want)


def test_unlikely_tokens_of_the_worked_answer_count_for_more_than_without_shaping() -> None:
    """f'(p) p = 0.1 p / (p + 0.1)^2 is largest at p = 0.1, where that of p is not."""
    objective = LUFFY(**PLAIN)
    chances = [0.9, 0.3, 0.1, 0.03, 0.003]
    batch = group([0, 1], lengths=[1, 5], roles=[0, 2], logp=[-1.0, *map(math.log, chances)])
    slopes = gradient(objective, kept(objective, batch))[1:]
    assert min(slopes) == slopes[2]


def test_entropy_is_of_what_was_sampled() -> None:
    objective = LUFFY(entropy_coef=0.5, max_completion_length=1)
    batch = kept(objective, group([1, 1, 1], roles=[0, 0, 2], entropy=[2.0, 1.0, 7.0]))
    assert objective(batch).loss_U.tolist() == pytest.approx([-1.0, -0.5, 0.0])


def test_without_a_worked_answer_it_is_dr_grpo() -> None:
    from onestage.objectives.grpo import GRPO

    batch = group([1, 0, 0.1], lengths=[2, 1, 3])
    plain = GRPO(loss_type="dr_grpo", scale_rewards="none", max_completion_length=10)
    mine = LUFFY(**PLAIN)
    assert gradient(mine, kept(mine, batch)) == gradient(plain, kept(plain, batch))


def test_a_certain_token_is_finite() -> None:
    objective = LUFFY(**PLAIN)
    batch = kept(objective, group([0, 1], roles=[0, 2]))
    batch = replace(batch, logp_K=torch.tensor([-800.0, 1e-7], dtype=torch.float64))
    assert bool(objective(batch).loss_U.isfinite().all())
