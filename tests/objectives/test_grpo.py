"""GRPO: golden advantages of the authors' settings, and every term by hand."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.objective_batches import NAN
from support.sampled_batches import gradient, group, kept, later, mean

from onestage.objectives.grpo import GRPO

HALF = [0.5**0.5, -(0.5**0.5)]
"""Advantages of rewards 1 and 0: 0.5 / sqrt(0.5), but for eps."""


def advantages(*scores: list[float], **options: Any) -> list[float]:
    objective = GRPO(**options)
    return kept(objective, group(*scores)).remembered["advantage"].tolist()


@pytest.mark.parametrize(
    ("rewards", "want"),
    [
        ([1, 0.1, 0.1, 0], [1.4924, -0.4264, -0.4264, -0.6396]),
        ([1, 1, 1, 0.1], [0.5, 0.5, 0.5, -1.5]),
    ],
)
def test_golden_advantages(rewards: list[float], want: list[float]) -> None:
    assert advantages(rewards) == pytest.approx(want, abs=1e-4)


@settings(max_examples=50, deadline=None)
@given(st.floats(-2, 2, width=32), st.integers(1, 9))
def test_equal_rewards_teach_exactly_nothing(reward: float, size: int) -> None:
    batch = group([reward] * size)
    for scale in ("group", "none"):
        objective = GRPO(scale_rewards=scale)
        assert gradient(objective, kept(objective, batch)) == [0.0] * size


def test_groups_are_compared_among_themselves() -> None:
    together = advantages([1, 0, 0.5], [0.1, 0.1], [7, 8])
    apart = [*advantages([1, 0, 0.5]), *advantages([0.1, 0.1]), *advantages([7, 8])]
    assert together == pytest.approx(apart)


def test_other_scales() -> None:
    """Dr. GRPO leaves the deviation out; `batch` takes that of all rewards: 1, 0, 3, 2 have 1.29."""
    assert advantages([1, 0], [3, 2], scale_rewards="none") == pytest.approx([0.5, -0.5] * 2)
    want = 0.5 / (5 / 3) ** 0.5
    found = advantages([1, 0], [3, 2], scale_rewards="batch")
    assert found == pytest.approx([want, -want] * 2, rel=1e-5)


# The surrogate, with advantages +-sqrt(1/2) for rewards 1 and 0.


def test_first_use_is_reinforce() -> None:
    """No update since sampling: the gradient of a token is -A over the number of tokens."""
    objective = GRPO()
    batch = kept(objective, group([1, 0], lengths=[2, 1]))
    assert "old_logp" not in batch.remembered
    up, down = HALF
    assert gradient(objective, batch) == pytest.approx([-up / 3, -up / 3, -down / 3], rel=1e-5)


@pytest.mark.parametrize(
    ("options", "ratios", "loss", "slopes"),
    [
        # the good one is clipped above 1.2, the bad one below 0.8, and only there
        ({}, (1.5, 1.5), (1.2, 1.5), (0, 1.5)),
        ({}, (0.5, 0.5), (0.5, 0.8), (0.5, 0)),
        ({"epsilon_high": 0.4}, (1.35, 0.7), (1.35, 0.8), (1.35, 0)),
        ({"epsilon": None}, (3.0, 0.1), (3.0, 0.1), (3.0, 0.1)),
    ],
)
def test_clip(options: Any, ratios: Any, loss: Any, slopes: Any) -> None:
    objective = GRPO(**options)
    batch = later(kept(objective, group([1, 0]), again=True), ratios)
    signed = [-a * value for a, value in zip(HALF, loss, strict=True)]
    assert objective(batch).loss_U.tolist() == pytest.approx(signed, rel=1e-5)
    want = [-a * slope / 2 for a, slope in zip(HALF, slopes, strict=True)]
    assert gradient(objective, batch) == pytest.approx(want, rel=1e-5)
    metrics = objective(batch).metrics
    if options.get("epsilon", 0.2) is not None:
        clipped = [float(slope == 0) for slope in slopes]
        assert metrics["clip_rate"].value_M.tolist() == clipped
    else:
        assert "clip_rate" not in metrics


def test_gspo_has_one_ratio_a_response() -> None:
    """s = exp(mean log-ratio): 2 and 1/2 give 1, so the value is A and the gradient A/(2 T)."""
    objective = GRPO(importance_sampling_level="sequence", loss_type="grpo")
    batch = later(kept(objective, group([1, 0], lengths=[2, 1]), again=True), (2.0, 0.5, 1.1))
    up, down = HALF
    assert objective(batch).loss_U.tolist() == pytest.approx([-up, -1.1 * down], rel=1e-5)
    want = [-up / 2 / 2, -up / 2 / 2, -1.1 * down / 2]
    assert gradient(objective, batch) == pytest.approx(want, rel=1e-5)
    far = later(batch, (2.0, 2.0, 1.0))  # s = 2 for the first: clipped, no token has a gradient
    assert gradient(objective, far)[:2] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("loss_type", "want"),
    [
        ("dapo", lambda a, b: (3 * a + b) / 4),
        ("grpo", lambda a, b: (a + b) / 2),
        ("dr_grpo", lambda a, b: (3 * a / 10 + b / 10) / 2),
        ("sum", lambda a, b: (3 * a + b) / 2),
    ],
)
def test_what_the_mean_is_over(loss_type: Any, want: Any) -> None:
    objective = GRPO(loss_type=loss_type, max_completion_length=10)
    batch = kept(objective, group([1, 0], lengths=[3, 1]), again=True)
    moved = later(batch, (1.1, 1.1, 1.1, 1.0))
    assert mean(objective, moved) == pytest.approx(want(-1.1 * HALF[0], -HALF[1]), rel=1e-5)


# KL and entropy


@pytest.mark.parametrize(
    ("estimator", "value", "slope"),
    [
        ("k1", lambda d: -d, lambda d: 1.0),
        ("k3", lambda d: math.exp(d) - d - 1, lambda d: 1 - math.exp(d)),
    ],
)
def test_kl_in_the_loss(estimator: Any, value: Any, slope: Any) -> None:
    objective = GRPO(beta=0.3, kl_estimator=estimator)
    batch = kept(objective, group([1, 1], logp=[-1.0, -2.0], ref=[-1.5, -1.0]))
    gaps = [-0.5, 1.0]
    assert objective(batch).loss_U.tolist() == pytest.approx([0.3 * value(d) for d in gaps])
    want = [0.3 * slope(d) / 2 for d in gaps]
    assert gradient(objective, batch) == pytest.approx(want)
    k3 = [math.exp(d) - d - 1 for d in gaps]
    assert objective(batch).metrics["kl"].value_M.tolist() == pytest.approx(k3)


def test_k3_is_bounded() -> None:
    objective = GRPO(beta=1.0)
    batch = kept(objective, group([1, 1], logp=[-30.0, -1.0]))
    assert objective(batch).loss_U.tolist() == pytest.approx([10.0, 0.0])


def test_kl_in_the_reward_is_of_whole_responses() -> None:
    """Rewards 1 - 0.1 (0.5 + 0.5) = 0.9 and 1 - 0.1 (-1) = 1.1; no KL in the loss."""
    objective = GRPO(beta=0.1, kl_in="reward", scale_rewards="none")
    assert objective.asks(False) == {"logp"}
    assert "reference" in objective.needs
    batch = kept(
        objective, group([1, 1], lengths=[2, 1], logp=[-1.0, -1.0, -2.0], ref=[-1.5, -1.5, -1.0])
    )
    assert batch.remembered["advantage"].tolist() == pytest.approx([-0.1, -0.1, 0.1])
    assert objective(batch).loss_U.tolist() == pytest.approx([0.1, 0.1, -0.1])


def test_entropy_bonus() -> None:
    objective = GRPO(entropy_coef=0.01)
    assert objective.needs == {"logp", "entropy"}
    batch = kept(objective, group([1, 1], entropy=[2.0, 0.5]))
    assert objective(batch).loss_U.tolist() == pytest.approx([-0.02, -0.005])
    entropy_K = batch.extra["entropy"].clone().requires_grad_()
    objective(replace(batch, extra={"entropy": entropy_K})).loss_U.sum().backward()
    assert entropy_K.grad.tolist() == pytest.approx([-0.01, -0.01])


# Who is trained on, and what is told


def test_hints_and_worked_answers_have_no_part() -> None:
    """Neither in the baseline, nor in the mean, nor in the gradient."""
    objective = GRPO(beta=0.1, entropy_coef=0.1)
    some = group([NAN, 1, 0, 0.7], lengths=[3, 1, 1, 2], roles=[1, 0, 0, 2], ref=-2.0, entropy=1.0)
    plain = group([1, 0], ref=-2.0, entropy=1.0)
    found, alone = (gradient(objective, kept(objective, one)) for one in (some, plain))
    assert found == pytest.approx([0, 0, 0, *alone, 0, 0])
    assert [x == 0 for x in found] == [True] * 3 + [False] * 2 + [True] * 2
    assert mean(objective, kept(objective, some)) == pytest.approx(
        mean(objective, kept(objective, plain))
    )


def test_told_is_minus_the_mean_reward() -> None:
    objective = GRPO()
    batch = kept(objective, group([NAN, 1, 0.1, 0.1], [1, 1], roles=[1, 0, 0, 0, 0, 2]))
    told = objective(batch).reported
    assert (told.value_M.sum() / told.weight_M.sum()).item() == pytest.approx(-(1 + 0.2 + 1) / 4)


# TRL's own loss


@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "dr_grpo"])
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_against_trl(loss_type: Any, level: Any) -> None:
    """Values and gradients by log-probabilities, with clip-higher and k3 in the loss."""
    theirs = pytest.importorskip("trl").GRPOTrainer
    draw = torch.Generator().manual_seed(4)
    lengths, longest = [3, 5, 1, 4], 5
    logp, old, ref = (
        -torch.rand(4, longest, generator=draw, dtype=torch.float64) * 2 - 0.1 for _ in range(3)
    )
    mask = (torch.arange(longest) < torch.tensor(lengths)[:, None]).double()
    flat = mask.bool()
    objective = GRPO(
        **{"beta": 0.05, "epsilon": 0.2, "epsilon_high": 0.3, "max_completion_length": 9},
        **{"loss_type": loss_type, "importance_sampling_level": level},
    )
    batch = group(
        [1, 0, 0.1, 0.5], lengths=lengths, logp=old[flat].tolist(), ref=ref[flat].tolist()
    )
    batch = kept(objective, batch, again=True)
    batch = replace(batch, logp_K=logp[flat])
    place_N = torch.tensor([0, 3, 8, 9])
    free = logp.clone().requires_grad_()
    same = {name: lambda x, **_: x for name in ("gather", "gather_for_metrics", "reduce")}
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *a, **k: (free, torch.zeros_like(free), None),
        **{"top_entropy_quantile": 1.0, "off_policy_mask_threshold": None, "use_vllm": False},
        **{"importance_sampling_level": level, "loss_type": loss_type, "beta": objective.beta},
        **{"epsilon_low": 0.2, "epsilon_high": 0.3, "max_completion_length": 9},
        **{"aux_loss_enabled": False, "_entropy_bonus_enabled": False},
        args=SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
        model=SimpleNamespace(training=True),
        current_gradient_accumulation_steps=1,
        accelerator=SimpleNamespace(num_processes=1, **same),
        _metrics={"train": defaultdict(list)},
    )
    inputs = {
        **{"prompt_ids": torch.zeros(4, 1), "prompt_mask": torch.ones(4, 1)},
        **{"completion_ids": torch.zeros(4, longest), "completion_mask": mask},
        "advantages": batch.remembered["advantage"].double()[place_N],
        **{"old_per_token_logps": old, "ref_per_token_logps": ref},
        "num_items_in_batch": mask.sum(),
    }
    loss = theirs._compute_loss(trainer, None, inputs)
    loss.backward()
    assert mean(objective, batch) == pytest.approx(loss.item(), rel=1e-6)
    assert gradient(objective, batch) == pytest.approx(free.grad[flat].tolist(), rel=1e-6)
