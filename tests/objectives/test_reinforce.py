"""REINFORCE: baselines, the penalty to go, whitening, and the running mean."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.objective_batches import NAN
from support.sampled_batches import gradient, group, kept, later
from support.second_opinions import agree, table
from torch import Tensor

from onestage.objectives import Scored
from onestage.objectives.reinforce import Reinforce


def test_baselines_by_hand() -> None:
    batch = group([1, 0], [0.5, 0.5, NAN, 1], roles=[0, 0, 0, 0, 1, 2])
    want = {
        "none": [1, 0, 0.5, 0.5, 0, 0],
        "batch": [0.5, -0.5, 0, 0, 0, 0],
        "group": [0.5, -0.5, 0, 0, 0, 0],
        "running": [1, 0, 0.5, 0.5, 0, 0],
    }
    for name, advantage in want.items():
        objective = Reinforce(baseline=name)
        assert kept(objective, batch).remembered["advantage"].tolist() == pytest.approx(advantage)
    uneven = group([1, 1], [0, 0])
    assert kept(Reinforce(), uneven).remembered["advantage"].tolist() == [0.5, 0.5, -0.5, -0.5]
    assert kept(Reinforce(baseline="group"), uneven).remembered["advantage"].tolist() == [0.0] * 4


def test_the_gradient_is_minus_the_advantage_over_responses() -> None:
    batch = group([1, 0], lengths=[2, 1])
    slopes = gradient(Reinforce(baseline="none"), kept(Reinforce(baseline="none"), batch))
    assert slopes == pytest.approx([-0.5, -0.5, 0])


def test_the_penalty_counts_from_the_token_on() -> None:
    """Log-ratios 1, 2, -1 and 3: to go 2, 1, -1 and 3."""
    objective = Reinforce(beta=0.1, baseline="none")
    batch = group([1, 0], lengths=[3, 1], logp=-1.0, ref=[-2.0, -3.0, 0.0, -4.0])
    want = [1 - 0.2, 1 - 0.1, 1 + 0.1, -0.3]
    assert kept(objective, batch).remembered["advantage"].tolist() == pytest.approx(want)


def test_whitening_is_over_the_tokens_of_everything() -> None:
    objective = Reinforce(whiten="batch", baseline="group")
    batch = group([1, 0], [3, 0], lengths=[3, 1, 1, 2])
    found = kept(objective, batch).remembered["advantage"]
    raw = torch.tensor([0.5, 0.5, 0.5, -0.5, 1.5, -1.5, -1.5], dtype=torch.float64)
    assert found.tolist() == pytest.approx(((raw - raw.mean()) / raw.std()).tolist(), rel=1e-5)
    hinted = group([NAN, 1, 0], roles=[1, 0, 0], lengths=[5, 1, 1])
    assert kept(objective, hinted).remembered["advantage"].tolist() == pytest.approx(
        [0] * 5 + [0.5**0.5, -(0.5**0.5)], rel=1e-5
    )
    equal = kept(objective, group([1, 1])).remembered["advantage"]
    assert equal.tolist() == [0.0, 0.0]


def test_the_running_mean_is_of_the_steps_before() -> None:
    """Means 0.5, then 1: after them 0.5, then (0.9 * 0.1 * 0.5 + 0.1 * 1) / 0.19."""
    objective = Reinforce(baseline="running", decay=0.9)
    state, batch = objective.start(), group([1, 0])
    baselines = []
    for rewards in ([1, 0], [1, 1], [0, 0]):
        now = replace(group(rewards), state=state)
        now = replace(now, remembered=objective.remember(now, False))
        baselines.append(rewards[0] - now.remembered["advantage"][0].item())
        observed = objective(now).observed
        state = objective.advance(state, {k: total / n for k, (total, n) in observed.items()})
    assert baselines == pytest.approx([0.0, 0.5, (0.045 + 0.1) / 0.19], rel=1e-5)
    assert objective.advance(state, {}) == state
    assert Reinforce().start() == {}
    assert Reinforce()(kept(Reinforce(), batch)).observed == {}


@pytest.mark.parametrize("form", ["plain", "groups"])
def test_verls_reinforce_plus_plus(form: str) -> None:
    """After an update, as `reinforce_plus_plus` and `reinforce_plus_plus_baseline` of verl's
    `trainer/ppo/core_algos.py` with its token mean. (Those, run beside this, give the same to 1e-5
    in float64.) With groups verl takes a penalty in the reward off the whole answer; there is none
    here."""
    grouped, options = form == "groups", {"whiten": "batch", "loss_type": "dapo"}
    objective = Reinforce(
        baseline="group" if grouped else "none", beta=0.0 if grouped else 0.1, **options
    )
    lengths, draw = [2, 1, 3, 2], torch.Generator().manual_seed(8)
    ref = (-torch.rand(8, generator=draw, dtype=torch.float64)).tolist()
    before = group([1, 0.1], [0, 1], lengths=lengths, logp=-0.7, ref=ref)
    batch = later(
        kept(objective, before, again=True), (0.6 + torch.rand(8, generator=draw)).tolist()
    )

    def theirs(batch: Scored) -> Tensor:
        tokens = table(batch, torch.ones_like(batch.logp_K))
        scores = torch.tensor([1, 0.1, 0, 1], dtype=torch.float64)
        if grouped:
            scores = scores - torch.tensor([0.55, 0.55, 0.5, 0.5], dtype=torch.float64)
            advantage = scores[:, None] * tokens
        else:
            advantage = -0.1 * (table(batch, before.logp_K) - table(batch, before.ref_logp_K))
            advantage[range(4), [length - 1 for length in lengths]] += scores
            advantage = advantage.flip(1).cumsum(1).flip(1) * tokens
        seen = advantage[tokens > 0]
        advantage = (advantage - seen.mean()) * torch.rsqrt(seen.var() + 1e-8) * tokens
        ratio = torch.exp(table(batch, batch.logp_K) - table(batch, before.logp_K))
        return (torch.max(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.2)) * tokens).sum()

    agree(objective, batch, theirs)
