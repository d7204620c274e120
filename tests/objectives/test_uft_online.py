"""UFT on what the policy sampled: hints stay out, and the raw form is the policy gradient (T2)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.objective_batches import CODE, NAN
from support.sampled_batches import gradient, group, kept, mean
from torch import Tensor

from onestage.objectives import Feedback, Scored
from onestage.objectives.uft import UFT


def test_hints_and_worked_answers_are_not_read_as_responses() -> None:
    """A hint has no score: it must not count as one of 0."""
    some = group([NAN, 1, 0, 1], lengths=[3, 1, 1, 2], roles=[1, 0, 0, 2], ref=-2.0)
    for objective in (
        UFT(beta=0.3),
        UFT(beta=0.3, loss="bce"),
        UFT(beta=0.3, loss="raw"),
        UFT(beta=0.3, loss="raw", offset="group"),
        UFT(beta=0.3, offset="group", target_clip=0.1),
    ):
        plain = kept(objective, group([1, 0], ref=-2.0))
        mine = kept(objective, some)
        assert objective.units(mine.feedback).count.item() == 2
        assert mean(objective, mine) == pytest.approx(mean(objective, plain))
        slopes = gradient(objective, mine)
        assert slopes == pytest.approx([0, 0, 0, *gradient(objective, plain), 0, 0])
    learned = UFT(loss="raw", offset="learned")
    observed = learned(kept(learned, some)).observed
    assert observed["slope"][1] == 2


def test_rewards_outside_the_scores_are_clamped_and_counted() -> None:
    objective = UFT()
    loss = objective(kept(objective, group([1.5, -0.5, 0.5])))
    assert loss.loss_U.tolist() == pytest.approx([0.25, 0.25, 0.0])
    assert loss.metrics["clip_rate"].value_M.tolist() == [1.0, 1.0, 0.0]


def test_the_raw_form_by_hand() -> None:
    """beta D = 0.2 and -0.1: (1.5 - 0.2 - f)^2 and (-0.5 + 0.1 - f)^2; the group's f is their mean."""
    batch = group([1.5, -0.5], logp=[-1.0, -2.0], ref=[-3.0, -1.0])
    for options, f in (
        ({}, 0.0),
        ({"offset": "constant", "offset_value": 0.4}, 0.4),
        ({"offset": "group"}, (1.3 - 0.4) / 2),
    ):
        objective = UFT(beta=0.1, loss="raw", **options)
        loss = objective(kept(objective, batch))
        assert loss.loss_U.tolist() == pytest.approx([(1.3 - f) ** 2, (-0.4 - f) ** 2])
        reached = [0.2 + f, -0.1 + f]
        assert loss.metrics["implicit_score"].value_M.tolist() == pytest.approx(reached)


def test_the_raw_form_takes_what_has_rewards() -> None:
    assert UFT(loss="raw").kinds == {"score", "group", "check", "pair"}
    assert UFT(loss="raw", offset="group").kinds == {"group", "check", "pair"}


def test_the_learned_offset_of_the_raw_form_is_the_mean_in_one_step() -> None:
    """With the policy at the reference the loss is a parabola in f, whose lowest point Newton hits."""
    objective = UFT(loss="raw", offset="learned")
    batch = kept(objective, group([0.9, 0.5, 0.1], [0.1]))
    observed = {k: total / n for k, (total, n) in objective(batch).observed.items()}
    assert objective.advance(objective.start(), observed) == {
        "offset": pytest.approx(0.4, abs=1e-6)
    }


# Policies that can be gone through: X prompts, Y responses, float64.


def problem(X: int = 3, Y: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    logits, ref, reward = (torch.randn(X, Y, generator=draw, dtype=torch.float64) for _ in range(3))
    return logits.requires_grad_(), torch.log_softmax(ref, -1), reward.float().double()


def on_policy(logp_XY: Tensor, ref_XY: Tensor, score_XY: Tensor) -> Scored:
    """Every response, weighed by its probability, through which no gradient goes: the expectation."""
    size = logp_XY.numel()
    feedback = Feedback(
        kind_N=torch.full((size,), CODE["check"]),
        score_N=score_XY.flatten().float(),
        weight_N=logp_XY.detach().exp().flatten(),
        tokens_N=torch.ones(size, dtype=torch.int64),
        record_N=torch.arange(size),
        pair_P2=torch.empty(0, 2, dtype=torch.int64),
        role_N=torch.zeros(size, dtype=torch.int64),
    )
    return Scored(feedback, logp_XY.flatten(), ref_XY.flatten(), torch.arange(size))


def slope(objective: UFT, logits: Tensor, ref_XY: Tensor, score_XY: Tensor) -> Tensor:
    batch = on_policy(torch.log_softmax(logits, -1), ref_XY, score_XY)
    batch = replace(batch, state=objective.start())
    return torch.autograd.grad(objective(batch).loss_U.sum(), logits)[0]


def of_the_aim(logits: Tensor, ref_XY: Tensor, reward_XY: Tensor, beta: float) -> Tensor:
    """grad J, J = sum_x E[reward] - beta KL(pi || pi_ref)."""
    logp_XY = torch.log_softmax(logits, -1)
    aim = (logp_XY.exp() * (reward_XY - beta * (logp_XY - ref_XY))).sum()
    return torch.autograd.grad(aim, logits)[0]


@pytest.mark.parametrize("f", [[0.0, 0.0, 0.0], [0.7, 0.7, 0.7], [-3.0, 0.5, 2.0]])
def test_on_policy_the_raw_form_is_the_policy_gradient_for_any_offset(f: list[float]) -> None:
    """T2: - 2 beta grad J. A reward lowered by f(x) is an offset of f(x)."""
    beta, (logits, ref_XY, reward_XY) = 0.3, problem()
    lowered_XY = (reward_XY - torch.tensor(f, dtype=torch.float64)[:, None]).float().double()
    found = slope(UFT(beta=beta, loss="raw"), logits, ref_XY, lowered_XY)
    want = -2 * beta * of_the_aim(logits, ref_XY, reward_XY, beta)
    assert (found - want).abs().max() < 1e-7
    moved = slope(
        UFT(beta=beta, loss="raw", offset="constant", offset_value=1.3), logits, ref_XY, lowered_XY
    )
    assert (moved - want).abs().max() < 1e-7


def test_the_sigmoid_form_is_not() -> None:
    """T2b: another direction, not only another length."""
    beta, (logits, ref_XY, reward_XY) = 0.3, problem()
    score_XY = torch.sigmoid(reward_XY)
    found = slope(UFT(beta=beta), logits, ref_XY, score_XY).flatten()
    want = -of_the_aim(logits, ref_XY, score_XY, beta).flatten()
    assert torch.cosine_similarity(found, want, 0) < 0.99


@pytest.mark.parametrize("loss", ["mse", "bce", "raw"])
def test_loss_and_gradient_depend_on_the_reference(loss: str) -> None:
    """T8: the authors' online script compares with the policy that sampled, so neither does."""
    logits, ref_XY, reward_XY = problem()
    score_XY, objective = torch.sigmoid(reward_XY), UFT(beta=0.3, loss=loss)
    logp_XY = torch.log_softmax(logits.detach(), -1)
    here, there = (slope(objective, logits, ref, score_XY) for ref in (ref_XY, logp_XY))
    assert (here - there).abs().max() > 1e-3
    losses = [
        objective(on_policy(logp_XY, ref, score_XY)).loss_U.sum().item()
        for ref in (ref_XY, logp_XY)
    ]
    assert abs(losses[0] - losses[1]) > 1e-3


def test_against_the_policy_that_sampled_it_is_reinforce() -> None:
    """What the script computes on its first pass: - beta/2 E[(s - 1/2) grad log pi]."""
    beta, (logits, _, reward_XY) = 0.3, problem()
    score_XY, logp_XY = torch.sigmoid(reward_XY), torch.log_softmax(logits, -1)
    found = slope(UFT(beta=beta), logits, logp_XY.detach(), score_XY)
    aim = (logp_XY.detach().exp() * (score_XY - 0.5) * logp_XY).sum()
    (want,) = torch.autograd.grad(-beta / 2 * aim, logits)
    assert (found - want).abs().max() < 1e-7
