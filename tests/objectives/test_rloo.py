"""RLOO: leave-one-out baselines by hand, and no bias, by going through every group there is."""

from __future__ import annotations

from collections import defaultdict
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.objective_batches import NAN
from support.sampled_batches import gradient, group, kept, mean

from onestage.objectives.rloo import RLOO


def advantages(rewards: list[float], **options: float) -> list[float]:
    return kept(RLOO(**options), group(rewards)).remembered["advantage"].tolist()


def test_by_hand() -> None:
    """1 - (0 + .5)/2, 0 - (1 + .5)/2, .5 - (1 + 0)/2."""
    assert advantages([1, 0, 0.5]) == pytest.approx([0.75, -0.75, 0.0])
    assert advantages([1.0]) == [0.0]
    assert advantages([0.1] * 3) == [0.0] * 3


@given(st.lists(st.floats(-3, 3, width=16), min_size=2, max_size=6))
def test_it_is_the_centred_reward_times_g_over_g_minus_one(rewards: list[float]) -> None:
    centre, size = sum(rewards) / len(rewards), len(rewards)
    want = [size / (size - 1) * (reward - centre) for reward in rewards]
    assert advantages(rewards) == pytest.approx(want, abs=1e-5)


def test_the_penalty_is_of_whole_responses() -> None:
    """Log-ratios 2 and -1 under the published beta 0.03: rewards 0.94 and 1.03."""
    batch = group([1, 1], lengths=[2, 1], logp=[-1.0, -1.0, -2.0], ref=[-2.0, -2.0, -1.0])
    objective = RLOO()
    assert kept(objective, batch).remembered["advantage"].tolist() == pytest.approx(
        [-0.09, -0.09, 0.09]
    )
    assert mean(objective, kept(objective, batch)) == pytest.approx((2 * 0.09 - 0.09) / 2)


def test_trl_says_the_same() -> None:
    """The gradient of TRL's own loss where answers are used once, with the KL in the reward as there.
    (Used again, TRL clips the ratio of a whole answer, and here those of its tokens are.)"""
    trainer = pytest.importorskip("trl.trainer.rloo_trainer").RLOOTrainer
    rewards, lengths, beta = [1.0, 0.0, 0.4, 0.7], [3, 1, 2, 3], 0.2
    draw = torch.Generator().manual_seed(1)
    logp_K, ref_K = (-torch.rand(9, generator=draw, dtype=torch.float64) for _ in range(2))
    batch = group(rewards, lengths=lengths, logp=logp_K.tolist(), ref=ref_K.tolist())
    objective = RLOO(beta=beta)
    mine = gradient(objective, kept(objective, batch))

    def padded(value_K: torch.Tensor) -> torch.Tensor:
        parts = value_K.split(lengths)
        return torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True)

    leaf_K = logp_K.clone().requires_grad_()
    logps, mask = padded(leaf_K), padded(torch.ones(9, dtype=torch.long))
    penalised = torch.tensor(rewards) - beta * (padded(logp_K) - padded(ref_K)).sum(1)
    one = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (logps, torch.zeros_like(logps), None),
        **{"aux_loss_enabled": False, "epsilon_low": 0.2, "epsilon_high": 0.2},
        **{
            "model": SimpleNamespace(training=True),
            "_metrics": defaultdict(lambda: defaultdict(list)),
        },
        accelerator=SimpleNamespace(reduce=lambda x, reduction: x, gather=lambda x: x),
    )
    inputs = {
        **{
            "prompt_ids": mask,
            "prompt_mask": mask,
            "completion_ids": mask,
            "completion_mask": mask,
        },
        "old_logps": logps.detach().sum(1),
        "advantages": penalised - (penalised.sum() - penalised) / 3,
    }
    (theirs,) = torch.autograd.grad(trainer._compute_loss(one, None, inputs), leaf_K)
    assert mine == pytest.approx(theirs.tolist(), rel=1e-5)


def test_hints_and_worked_answers_are_no_others() -> None:
    batch = group([NAN, 1, 0, 1], roles=[1, 0, 0, 2])
    assert kept(RLOO(), batch).remembered["advantage"].tolist() == pytest.approx([0, 1, -1, 0])


def test_the_expected_gradient_is_that_of_reward_less_kl() -> None:
    """Over all groups of three of a policy with three answers: - grad (E R - beta KL), exactly."""
    beta, reward = 0.3, [1.0, 0.1, 0.4]
    logits = torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64, requires_grad=True)
    ref = torch.log_softmax(torch.tensor([0.0, 0.4, -0.2], dtype=torch.float64), -1)
    logp = torch.log_softmax(logits, -1)
    aim = (logp.exp() * (torch.tensor(reward) - beta * (logp - ref))).sum()
    (want,) = torch.autograd.grad(-aim, logits, retain_graph=True)
    jacobian = torch.autograd.functional.jacobian(
        lambda x: torch.log_softmax(x, -1), logits.detach()
    )
    found = torch.zeros(3, dtype=torch.float64)
    objective = RLOO(beta=beta)
    for answers in product(range(3), repeat=3):
        batch = group(
            [reward[y] for y in answers],
            logp=[logp[y].item() for y in answers],
            ref=[ref[y].item() for y in answers],
        )
        slopes = gradient(objective, kept(objective, batch))
        chance = logp.detach()[list(answers)].sum().exp()
        found += chance * sum(g * jacobian[y] for g, y in zip(slopes, answers, strict=True))
    assert found.tolist() == pytest.approx(want.tolist(), abs=1e-7)
