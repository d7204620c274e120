"""RL-PLUS: the mixture's ratio, the favoured tokens, and the authors' loss written anew."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from support.objective_batches import NAN
from support.sampled_batches import gradient, group, kept, later

from onestage.objectives.grpo import GRPO
from onestage.objectives.rl_plus import RLPlus

PLAIN = {"entropy_coef": 0.0, "max_completion_length": 10}


def test_the_worked_answer_has_no_part_in_the_mean() -> None:
    """Rewards 0 and 0.2 sampled, 1 worked: the mean is 0.1; a hint has no part."""
    objective = RLPlus()
    batch = kept(objective, group([NAN, 0, 0.2, 1], roles=[1, 0, 0, 2], entropy=1.0))
    assert batch.remembered["advantage"].tolist() == pytest.approx([0, -0.1, 0.1, 0.9])
    assert objective.units(batch.feedback).count.item() == 3


def test_by_hand() -> None:
    """Sampled: -A r. Worked, A 0.9: p 0.36 before and 0.64 after the update,
    r = 1.28 / (0.36 + 0.68), times sqrt(0.36)."""
    objective = RLPlus(**PLAIN)
    batch = group([0, 0.2, 1], roles=[0, 0, 2], logp=[-1.0, -1.0, math.log(0.36)])
    batch = later(kept(objective, batch, again=True), [3.0, 0.5, 0.64 / 0.36])
    ratio = 1.28 / 1.04
    want = [0.1 * 3.0 / 10, -0.1 * 0.5 / 10, -0.9 * 0.6 * ratio / 10]
    assert objective(batch).loss_U.tolist() == pytest.approx(want)
    # dr / d log p = r, and no gradient through sqrt(1 - p)
    assert gradient(objective, batch) == pytest.approx([x / 3 for x in want])


def test_the_authors_loss() -> None:
    """Of three sampled answers and a worked one, after an update. (Their own
    `compute_token_on_off_policy_loss`, run beside this, gives the same to 1e-5 in float64.)"""
    rewards, lengths, draw = [0.1, 0.7, 0.4, 1.0], [2, 3, 1, 4], torch.Generator().manual_seed(4)
    old, moved = (torch.rand(10, generator=draw, dtype=torch.float64) for _ in range(2))
    objective = RLPlus(**PLAIN)
    batch = group(rewards, lengths=lengths, roles=[0, 0, 0, 2], logp=(old.log()).tolist())
    batch = later(kept(objective, batch, again=True), (0.5 + moved / 2).tolist())
    p = (old * (0.5 + moved / 2)).requires_grad_()
    advantages = torch.tensor([-0.3, 0.3, 0.0, 0.6]).repeat_interleave(torch.tensor(lengths))
    mixed = torch.sqrt(1 - p.detach()) * 2 * p / (old + 0.5 * (old + 1))
    ratio = torch.where(torch.arange(10) < 6, p / old, mixed)
    theirs = -(advantages * ratio).sum() / 10
    assert objective(batch).loss_U.sum().item() == pytest.approx(theirs.item(), rel=1e-5)
    slopes = torch.autograd.grad(theirs, p)[0] * p.detach() / 4
    assert gradient(objective, batch) == pytest.approx(slopes.tolist(), rel=1e-5, abs=1e-9)


def test_unlikely_tokens_are_favoured_and_the_ratio_is_bounded() -> None:
    """At first use: r = 2 p / (1.5 p + 0.5) goes from 4 p to 1, where the weight is 0."""
    objective = RLPlus(**PLAIN)
    chances = [0.999, 0.7, 0.3, 0.05]
    batch = group([0, 1], lengths=[1, 4], roles=[0, 2], logp=[-1.0, *map(math.log, chances)])
    slopes = gradient(objective, kept(objective, batch))[1:]
    want = [-2 * p / (1.5 * p + 0.5) * math.sqrt(1 - p) / 10 / 2 for p in chances]
    assert slopes == pytest.approx(want)
    assert min(slopes) == slopes[2]


def test_without_a_worked_answer_it_is_dr_grpo() -> None:
    batch = group([1, 0, 0.1], lengths=[2, 1, 3])
    plain = GRPO(loss_type="dr_grpo", scale_rewards="none", max_completion_length=10, epsilon=None)
    mine = RLPlus(**PLAIN)
    assert gradient(mine, kept(mine, batch)) == gradient(plain, kept(plain, batch))


def test_a_certain_token_is_finite() -> None:
    objective = RLPlus(**PLAIN)
    batch = kept(objective, group([0, 1], roles=[0, 2]))
    batch = replace(batch, logp_K=torch.tensor([-800.0, 1e-7], dtype=torch.float64))
    assert bool(objective(batch).loss_U.isfinite().all())


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="focus"):
        RLPlus(focus=-1.0)
