"""PPO: advantages against plain loops, the value loss by hand, and a tiny policy that learns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.objective_batches import NAN
from support.sampled_batches import group, kept, later
from support.second_opinions import agree, masked_mean, table
from torch import Tensor

from onestage.objectives import Scored
from onestage.objectives.ppo import PPO


def plain_gae(rewards: list[float], values: list[float], gamma: float, lam: float) -> list[float]:
    """Of one response, from the definition: A_t = sum_k (gamma lambda)^k delta_{t+k}."""
    after = [*values[1:], 0.0]
    deltas = [r + gamma * n - v for r, n, v in zip(rewards, after, values, strict=True)]
    return [
        sum((gamma * lam) ** k * delta for k, delta in enumerate(deltas[t:]))
        for t in range(len(deltas))
    ]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_gae_against_loops(data: Any) -> None:
    lengths = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    number = st.floats(-2, 2, width=16)
    scores = [data.draw(number) for _ in lengths]
    values, logp, ref = (
        [data.draw(number) for _ in range(sum(lengths))] for _ in ("value", "logp", "ref")
    )
    gamma, lam = data.draw(st.sampled_from([(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.8, 0.0)]))
    objective = PPO(gamma=gamma, lam=lam, beta=0.1)
    found = objective.gae_K(group(scores, lengths=lengths, logp=logp, ref=ref, value=values))
    want, at = [], 0
    for score, length in zip(scores, lengths, strict=True):
        cut = slice(at, at + length)
        paid = [-0.1 * (a - b) for a, b in zip(logp[cut], ref[cut], strict=True)]
        paid[-1] += score
        want += plain_gae(paid, values[cut], gamma, lam)
        at += length
    assert found.tolist() == pytest.approx(want, abs=1e-5)


def test_with_lambda_one_the_return_is_the_reward_less_the_penalty_to_go() -> None:
    objective = PPO(lam=1.0, beta=0.1)
    batch = group([1], lengths=[3], ref=[-2.0, -1.0, -3.0], value=[0.3, -0.2, 0.7])
    assert kept(objective, batch).remembered["return"].tolist() == pytest.approx([0.7, 0.8, 0.8])


def test_advantages_are_whitened_and_returns_are_not() -> None:
    batch = group([1, 0, NAN], lengths=[2, 1, 2], roles=[0, 0, 1], value=[0.5, 0.2, 0.1, 9, 9])
    objective = PPO(beta=0.0)
    found, raw = kept(objective, batch).remembered, objective.gae_K(batch)[:3]
    want = (raw - raw.mean()) / raw.std()
    assert found["advantage"].tolist() == pytest.approx([*want.tolist(), 0, 0], rel=1e-4)
    value_K = batch.extra["value"]
    assert found["return"][:3].tolist() == pytest.approx((raw + value_K[:3]).tolist())
    assert bool(found["return"].isfinite().all())
    plain = kept(PPO(beta=0.0, whiten="none"), batch).remembered["advantage"]
    assert plain[:3].tolist() == pytest.approx(raw.tolist())


@pytest.mark.parametrize(
    ("value", "error", "slope"),
    [
        (0.6, 0.5**2, 2 * -0.5),  # near the old value 0.5, return 1.1
        (0.9, 0.4**2, 0.0),  # clipped to 0.7, where the error is larger: no gradient
        (0.1, 1.0**2, 2 * -1.0),  # clipped to 0.3, but that error is smaller
    ],
)
def test_value_loss_by_hand(value: float, error: float, slope: float) -> None:
    objective = PPO(vf_coef=5.0)
    value_K = torch.tensor([value], dtype=torch.float64, requires_grad=True)
    before = group([1], value=0.5)
    one = {"advantage": 0.0, "old_logp": -1.0, "value": 0.5, "return": 1.1}
    numbers = {name: torch.tensor([number], dtype=torch.float64) for name, number in one.items()}
    batch = replace(before, remembered=numbers, extra={"value": value_K})
    loss = objective(batch)
    assert loss.loss_U.item() == pytest.approx(5 / 2 * error)
    assert loss.metrics["value_loss"].value_M.item() == pytest.approx(error / 2)
    loss.loss_U.sum().backward()
    assert value_K.grad.item() == pytest.approx(5 / 2 * slope)


def test_what_it_asks_to_know() -> None:
    assert PPO().needs == {"logp", "reference", "value"}
    assert PPO().asks(False) == {"logp", "value"}
    assert PPO(beta=0.0).asks(False) == {"value"}
    assert PPO(entropy_coef=0.1).needs == {"logp", "reference", "entropy", "value"}


def test_a_tabular_policy_learns_two_tokens() -> None:
    """Three tokens, two steps, reward 1 for the answer (1, 2) alone; the value head learns its worth."""
    draw = torch.Generator().manual_seed(0)
    logits = torch.zeros(4, 3, requires_grad=True)  # states: start, and the first token
    values = torch.zeros(4, requires_grad=True)
    objective, optimizer = PPO(beta=0.001), torch.optim.Adam([logits, values], lr=0.1)
    ref_43 = torch.log_softmax(logits.detach(), -1)

    def batch_of(first_N: torch.Tensor, second_N: torch.Tensor) -> Scored:
        state_K = torch.stack([torch.zeros_like(first_N), first_N + 1], 1).flatten()
        token_K = torch.stack([first_N, second_N], 1).flatten()
        scores = ((first_N == 1) & (second_N == 2)).float().tolist()
        batch = group(scores, lengths=[2] * len(scores))
        return replace(
            batch,
            logp_K=torch.log_softmax(logits, -1)[state_K, token_K],
            ref_logp_K=ref_43[state_K, token_K],
            extra={"value": values[state_K]},
        )

    for _ in range(40):
        with torch.no_grad():
            probabilities = torch.softmax(logits, -1)
            first_N = torch.multinomial(probabilities[0], 32, True, generator=draw)
            second_N = torch.multinomial(probabilities[first_N + 1], 1, generator=draw)[:, 0]
            kept_now = objective.remember(batch_of(first_N, second_N), True)
        for _ in range(2):
            optimizer.zero_grad()
            batch = replace(batch_of(first_N, second_N), remembered=kept_now)
            (objective(batch).loss_U.sum() / objective.units(batch.feedback).count).backward()
            optimizer.step()
    chances = torch.softmax(logits.detach(), -1)
    assert (chances[0, 1] * chances[2, 2]).item() > 0.9  # 1/9 at the start
    assert values[2].item() > 0.7


def test_verls_loss() -> None:
    """After an update of policy and values, by what verl's `trainer/ppo/core_algos.py` does: the
    penalty off the tokens' rewards, GAE backwards, whitened advantages, the clipped surrogate, the
    clipped value loss; added as ReFT does for a shared trunk. (`compute_gae_advantage_return`,
    `compute_policy_loss_vanilla` and `compute_value_loss`, run beside this, give the same to 1e-5 in
    float64.)"""
    objective, lengths = PPO(gamma=0.9, lam=0.8, beta=0.1), [2, 4, 1]
    draw = torch.Generator().manual_seed(9)
    ref, old, new = (torch.rand(7, generator=draw, dtype=torch.float64) for _ in range(3))
    before = group([1, 0.1, 0], lengths=lengths, logp=-0.7, ref=(-ref).tolist(), value=old.tolist())
    batch = later(
        kept(objective, before, again=True), (0.6 + torch.rand(7, generator=draw)).tolist()
    )
    value_K = (old + 0.6 * (new - 0.5)).requires_grad_()
    batch = replace(batch, extra={"value": value_K})

    def theirs(batch: Scored) -> Tensor:
        tokens = table(batch, torch.ones_like(batch.ref_logp_K))
        values, said = table(batch, old), table(batch, before.logp_K)
        rewards = -0.1 * (said - table(batch, before.ref_logp_K))
        rewards[range(3), [length - 1 for length in lengths]] += torch.tensor([1, 0.1, 0])
        later_value, later_advantage, advantages = torch.zeros(3), torch.zeros(3), []
        for t in reversed(range(4)):
            delta = rewards[:, t] + 0.9 * later_value - values[:, t]
            later_advantage = (delta + 0.9 * 0.8 * later_advantage) * tokens[:, t]
            later_value = values[:, t] * tokens[:, t]
            advantages.insert(0, later_advantage)
        advantage = torch.stack(advantages, 1)
        returns, seen = advantage + values, advantage[tokens > 0]
        advantage = (advantage - seen.mean()) * torch.rsqrt(seen.var() + 1e-8)
        ratio = torch.exp(table(batch, batch.logp_K) - said)
        policy = masked_mean(
            torch.max(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.2)), tokens
        )
        value = table(batch, value_K)
        near = torch.max(torch.min(value, values + 0.2), values - 0.2)
        error = masked_mean(torch.max((value - returns) ** 2, (near - returns) ** 2), tokens)
        return (policy + 5.0 * 0.5 * error) * tokens.sum()

    agree(objective, batch, theirs)
    mine, other = objective(batch).loss_U.sum(), theirs(batch)
    slopes = [torch.autograd.grad(one, value_K)[0] for one in (mine, other)]
    torch.testing.assert_close(*slopes, rtol=1e-5, atol=1e-7)
