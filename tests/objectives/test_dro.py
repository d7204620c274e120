"""DRO-V against hand arithmetic, its two gradients written out, and the policy that it comes to."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.objective_batches import scored

from onestage.objectives import Scored
from onestage.objectives.dro import DRO


def judged(score: float, log_ratio: float, value: float) -> Scored:
    """One answer of two tokens; the value before its second one is anything."""
    batch = scored([("score", [score])], log_ratios=[log_ratio], lengths=[2], dtype=torch.float64)
    value_K = torch.tensor([value, 99.0], dtype=torch.float64, requires_grad=True)
    return replace(batch, logp_K=batch.logp_K.requires_grad_(), extra={"value": value_K})


def test_by_hand_and_both_gradients() -> None:
    """r 0.75, V 0.25, beta 0.5, D 0.4: an error of 0.3."""
    batch = judged(0.75, 0.4, 0.25)
    loss = DRO(beta=0.5, vf_coef=2.0)(batch)
    assert loss.reported.value_M.item() == pytest.approx(0.3**2 / 2)
    assert loss.loss_U.item() == pytest.approx(0.3**2 / 2 / 0.5 + 2.0 * 0.3**2 / 2)
    loss.loss_U.sum().backward()
    # -(r - V) + beta D, on every token; the value's slope at the prompt's end alone
    assert batch.logp_K.grad.tolist() == pytest.approx([-0.5 + 0.5 * 0.4] * 2)
    assert batch.extra["value"].grad.tolist() == pytest.approx([-2.0 * 0.3, 0.0])


def test_the_papers_algorithm() -> None:
    """Its two losses, of policy and of value, as gradients of many answers. (LLNL's protein_tune_rl,
    the one public implementation with both, run beside this gives the same to 1e-5 in float64, where
    its means over the tokens of an answer, which the paper has not, are turned off.)"""
    tau, records = 0.4, [("score", [0.9]), ("score", [0.2]), ("group", [0.5, 0.1, 0.7])]
    batch = scored(records, seed=5, dtype=torch.float64)
    logp_K, value_K = batch.logp_K.requires_grad_(), batch.extra["value"].requires_grad_()
    batch = replace(batch, logp_K=logp_K, extra={"value": value_K})
    policy, critic, begin = torch.zeros(()), torch.zeros(()), 0
    for size, score in zip(
        batch.feedback.tokens_N.tolist(), [0.9, 0.2, 0.5, 0.1, 0.7], strict=True
    ):
        mine = slice(begin, begin + size)
        ratio = (logp_K[mine] - batch.ref_logp_K[mine]).sum()
        value, begin = value_K[begin], begin + size
        policy = policy - logp_K[mine].sum() * (score - value.detach()) + tau / 2 * ratio**2
        critic = critic + (value.detach() - score + tau * ratio.detach()) * value
    mine_K = torch.autograd.grad(DRO(beta=tau)(batch).loss_U.sum(), (logp_K, value_K))
    theirs_K = torch.autograd.grad(policy + critic, (logp_K, value_K))
    for mine, theirs in zip(mine_K, theirs_K, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-7)


def test_it_comes_to_the_optimal_policy_whatever_the_level_of_the_scores() -> None:
    """A bandit of three answers: pi = pi_ref exp(r / beta) / Z and V = beta log Z, from any offset of r
    (with f = 0, as UNA has it, the level would matter)."""
    reference = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    for level in (0.0, 0.4):
        score = torch.tensor([0.1, 0.5, 0.3], dtype=torch.float64) + level
        logits, value = (torch.zeros(n, dtype=torch.float64, requires_grad=True) for n in (3, 1))
        optimizer = torch.optim.LBFGS([logits, value], max_iter=100, line_search_fn="strong_wolfe")
        template = scored([("group", score.tolist())], lengths=[1, 1, 1], dtype=torch.float64)

        def step(
            logits: torch.Tensor = logits,
            value: torch.Tensor = value,
            template: Scored = template,
            optimizer: torch.optim.Optimizer = optimizer,
        ) -> torch.Tensor:
            optimizer.zero_grad()
            batch = replace(
                template,
                logp_K=torch.log_softmax(logits, 0),
                ref_logp_K=reference.log(),
                extra={"value": value.expand(3)},
            )
            # beta 1/2 and vf_coef 2: both halves then have the gradient of one function, 2 L.
            loss: torch.Tensor = DRO(beta=0.5, vf_coef=2.0)(batch).loss_U.sum()
            loss.backward()
            return loss

        optimizer.step(step)
        weight = reference * (score / 0.5).exp()
        torch.testing.assert_close(
            torch.softmax(logits, 0).detach(), weight / weight.sum(), rtol=1e-4, atol=1e-5
        )
        assert value.item() == pytest.approx(0.5 * float(weight.sum().log()), abs=1e-4)


@pytest.mark.parametrize("options", [{"beta": 0.0}, {"vf_coef": 0.0}])
def test_bad_options(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        DRO(**options)
