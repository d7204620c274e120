"""UFT/UNA: hand values, the start values of law 1, the gradient table 1f, and the theory tests."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from support.objective_batches import CODE, NAN, scored
from support.second_opinions import agree, some_pairs, trl_dpo
from torch import Tensor

from onestage.objectives import Feedback, Scored
from onestage.objectives.dpo import DPO
from onestage.objectives.uft import UFT


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def mean(objective: UFT, batch: Scored) -> float:
    batch = dataclasses.replace(batch, state=objective.start())
    return (objective(batch).loss_U.sum() / objective.units(batch.feedback).count).item()


START = [
    ("demonstration", [NAN], "mse", 0.25),
    ("label", [0.0], "mse", 0.25),
    ("label", [1.0], "bce", math.log(2)),
    ("pair", [NAN, NAN], "mse", math.log(2)),
    ("score", [0.8], "mse", 0.09),
    ("score", [0.8], "bce", math.log(2)),
    ("group", [0.9, 0.1], "mse", 0.16),
]


@pytest.mark.parametrize(("kind", "scores", "loss", "want"), START)
def test_start_values(kind: Any, scores: list[float], loss: Any, want: float) -> None:
    batch = scored([(kind, scores)], log_ratios=[0.0] * len(scores))
    assert mean(UFT(loss=loss), batch) == pytest.approx(want, rel=1e-6)


def test_each_kind_by_hand() -> None:
    """beta 0.1; D = 5, -3, 2, (4, 1): q = sigma(beta D)."""
    records = [("demonstration", [NAN]), ("score", [0.3]), ("label", [0.0]), ("pair", [NAN, NAN])]
    batch = scored(records, log_ratios=[5.0, -3.0, 2.0, 4.0, 1.0])
    squares = [(sigma(0.5) - 1) ** 2, (sigma(-0.3) - 0.3) ** 2, sigma(0.2) ** 2]
    want = [*squares, math.log1p(math.exp(-0.3))]
    objective = UFT(beta=0.1)
    assert objective(batch).loss_U.tolist() == pytest.approx(want, rel=1e-5)
    assert objective.units(batch.feedback).count.item() == 4
    assert mean(objective, batch) == pytest.approx(sum(want) / 4, rel=1e-5)


def test_pairs_as_scores_by_hand() -> None:
    """Given scores where there are some, else 1 and 0; each side is a unit."""
    batch = scored([("pair", [NAN, NAN]), ("pair", [0.8, 0.3])], log_ratios=[4.0, 1.0, 2.0, -2.0])
    objective = UFT(beta=0.1, pairs="score")
    targets, q = [1.0, 0.0, 0.8, 0.3], [sigma(0.1 * d) for d in (4.0, 1.0, 2.0, -2.0)]
    want = [(a - b) ** 2 for a, b in zip(q, targets, strict=True)]
    assert objective(batch).loss_U.tolist() == pytest.approx(want, rel=1e-5)
    assert objective.units(batch.feedback).count.item() == 4


def test_the_pair_form_is_dpo() -> None:
    batch = scored([("pair", [NAN, NAN])] * 3, seed=5, spread=2.0)
    assert UFT(beta=0.1)(batch).loss_U.tolist() == pytest.approx(
        DPO(beta=0.1)(batch).loss_U.tolist(), rel=1e-6
    )


GRADIENTS = [  # -dL/dlogp of a token at q = sigma(beta D), table 1f
    ("demonstration", NAN, "mse", lambda b, q, s: 2 * b * q * (1 - q) ** 2),
    ("label", 1.0, "bce", lambda b, q, s: b * (1 - q)),
    ("label", 0.0, "mse", lambda b, q, s: -2 * b * q**2 * (1 - q)),
    ("label", 0.0, "bce", lambda b, q, s: -b * q),
    ("score", 0.7, "mse", lambda b, q, s: 2 * b * (s - q) * q * (1 - q)),
    ("score", 0.7, "bce", lambda b, q, s: b * (s - q)),
]


@pytest.mark.parametrize(("kind", "score", "loss", "want"), GRADIENTS)
@pytest.mark.parametrize("ratio", [0.0, 6.0, -4.0])
def test_gradient_table(kind: Any, score: float, loss: Any, want: Any, ratio: float) -> None:
    beta, batch = 0.1, scored([(kind, [score])], log_ratios=[ratio], dtype=torch.float64)
    logp_K = batch.logp_K.clone().requires_grad_()
    UFT(beta=beta, loss=loss)(dataclasses.replace(batch, logp_K=logp_K)).loss_U.sum().backward()
    expected = want(beta, sigma(beta * ratio), score)
    assert (-logp_K.grad).tolist() == pytest.approx([expected] * len(logp_K), rel=1e-4)


def test_demonstrations_saturate_at_the_reference_likelihood() -> None:
    """T6: a response cannot become likelier than 1, so s <= sigma(beta * NLL_ref), and the loss has
    the floor (1 - sigma(beta * NLL_ref))^2."""
    batch = scored([("demonstration", [NAN])], lengths=[4], seed=2)
    nll = -batch.ref_logp_K.sum().item()
    certain = dataclasses.replace(batch, logp_K=torch.zeros_like(batch.logp_K))
    objective = UFT(beta=0.3)
    assert objective(certain).loss_U.item() == pytest.approx((1 - sigma(0.3 * nll)) ** 2, rel=1e-5)


def test_target_clip_is_counted() -> None:
    batch = scored([("score", [1.0]), ("score", [0.5])], log_ratios=[0.0, 0.0])
    loss = UFT(target_clip=0.1)(batch)
    assert loss.loss_U.tolist() == pytest.approx([0.16, 0.0])
    assert loss.metrics["clip_rate"].value_M.tolist() == [1.0, 0.0]


def test_the_constant_offset_moves_the_zero_point_but_not_of_demonstrations() -> None:
    batch = scored([("score", [0.9]), ("demonstration", [NAN])], log_ratios=[0.0, 0.0])
    objective = UFT(offset="constant", offset_value=math.log(9))
    batch = dataclasses.replace(batch, state=objective.start())
    assert objective(batch).loss_U.tolist() == pytest.approx([0.0, 0.25], abs=1e-6)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (4.0, 1.0), (0.0, 2.0)])
@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_the_learned_offset_finds_the_mean_score(loss: Any, weights: tuple[float, float]) -> None:
    """With the policy held at the reference, s = sigma(f) is best at the mean of the scores, in which a
    row counts as much as it weighs."""
    objective = UFT(offset="learned", loss=loss)
    batch = scored(
        [("score", [0.9]), ("score", [0.7]), ("demonstration", [NAN])], log_ratios=[0.0] * 3
    )
    feedback = dataclasses.replace(batch.feedback, weight_N=torch.tensor([*weights, 1.0]))
    batch, state = dataclasses.replace(batch, feedback=feedback), objective.start()
    for _ in range(60):
        observed = objective(dataclasses.replace(batch, state=state)).observed
        state = objective.advance(state, {k: s / n for k, (s, n) in observed.items() if n})
    mean = (0.9 * weights[0] + 0.7 * weights[1]) / sum(weights)
    assert sigma(state["offset"]) == pytest.approx(mean, abs=1e-3)


def test_the_group_offset_leaves_differences_only() -> None:
    """Adding the same log-ratio to all responses of a prompt changes nothing; single scores cannot
    be centred and are refused."""
    objective = UFT(beta=0.1, offset="group", target_clip=0.01)
    left = scored([("group", [0.9, 0.4, 0.2])], log_ratios=[1.0, 2.0, -1.0])
    right = scored([("group", [0.9, 0.4, 0.2])], log_ratios=[11.0, 12.0, 9.0])
    assert objective(left).loss_U.tolist() == pytest.approx(
        objective(right).loss_U.tolist(), rel=1e-4
    )
    assert {"score", "label"}.isdisjoint(objective.kinds)


# Theory on enumerable policies: X prompts, Y responses, float64.


def enumerable(seed: int = 0, X: int = 3, Y: int = 5) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    ref_XY = torch.log_softmax(torch.randn(X, Y, generator=draw, dtype=torch.float64), -1)
    score_XY = torch.rand(X, Y, generator=draw, dtype=torch.float64) * 0.8 + 0.1
    return ref_XY, score_XY


def as_groups(logp_XY: Tensor, ref_XY: Tensor, score_XY: Tensor) -> Scored:
    X, Y = logp_XY.shape
    size = X * Y
    return Scored(
        Feedback(
            torch.full((size,), CODE["group"]),
            score_XY.flatten().float(),
            torch.ones(size),
            torch.ones(size, dtype=torch.int64),
            torch.repeat_interleave(torch.arange(X), Y),
            torch.empty(0, 2, dtype=torch.int64),
            torch.zeros(size, dtype=torch.int64),
        ),
        logp_XY.flatten(),
        ref_XY.flatten(),
        torch.arange(size),
    )


def fit(objective: UFT, steps: int = 600) -> tuple[Tensor, Tensor, float]:
    """The policy that minimises the loss over all prompts and responses, and Gibbs(logit s)."""
    ref_XY, score_XY = enumerable()
    free_XY = ref_XY.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [free_XY], max_iter=steps, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        batch = as_groups(torch.log_softmax(free_XY, -1), ref_XY, score_XY)
        value = objective(batch).loss_U.double().sum()
        value.backward()
        return value

    last = float(optimizer.step(loss).detach())
    final = objective(as_groups(torch.log_softmax(free_XY, -1), ref_XY, score_XY)).loss_U.sum()
    gibbs_XY = torch.log_softmax(ref_XY + torch.logit(score_XY) / objective.beta, -1)
    assert last >= 0
    return torch.softmax(free_XY.detach(), -1), gibbs_XY.exp(), float(final.detach())


@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_with_an_offset_for_each_prompt_the_gibbs_policy_is_found(loss: Any) -> None:
    """T4: score regression with a free f(x) recovers pi_ref * exp(logit(s) / beta) / Z. The group
    offset is that f(x), eliminated; without it (f = 0) the policy is another one."""
    centred, gibbs, residual = fit(UFT(beta=1.0, loss=loss, offset="group", target_clip=0.01))
    assert (centred - gibbs).abs().sum(-1).max() / 2 < 2e-3
    plain, gibbs, residual_plain = fit(UFT(beta=1.0, loss=loss))
    assert (plain - gibbs).abs().sum(-1).max() / 2 > 0.05
    if loss == "mse":
        assert residual < 1e-5 < residual_plain


def test_the_loss_depends_on_the_reference() -> None:
    """T8 guards against the authors' online script, whose loss never used it."""
    ref_XY, score_XY = enumerable()
    logp_XY = torch.log_softmax(ref_XY + score_XY, -1)
    here = UFT(beta=1.0)(as_groups(logp_XY, ref_XY, score_XY)).loss_U.sum()
    there = UFT(beta=1.0)(as_groups(logp_XY, logp_XY, score_XY)).loss_U.sum()
    assert abs(here.item() - there.item()) > 1e-3


THEIRS = {"mse": lambda q, t: (q - t) ** 2, "bce": lambda q, t: -(q if t else 1 - q).log()}
"""What the authors' three scripts give a side of their pairs, by its rating (scores) or its place
(thumbs)."""


@pytest.mark.parametrize("loss", THEIRS)
def test_the_authors_losses(loss: Any) -> None:
    """A demonstration is rated 1 (UFT Eq. 7). (`dpo_loss` of their `UNA_trainer_score_MSE`,
    `_binary_MSE` and `_binary_BCE`, run beside this with one pair at a time, gives the same to 1e-5
    in float64.)"""
    rated = {"demonstration": 1.0, "up": 1.0, "down": 0.0} | (
        {"score": 0.3} if loss == "mse" else {}
    )
    kinds = {"demonstration": "demonstration", "score": "score"}
    records: list[Any] = [
        (kinds.get(k, "label"), [NAN if k == "demonstration" else t]) for k, t in rated.items()
    ]

    def theirs(batch: Scored) -> Tensor:
        told = [
            (batch.logp_K[own].sum(), batch.ref_logp_K[own].sum(), rating)
            for n, rating in enumerate(rated.values())
            for own in [batch.response_K == n]
        ]
        return torch.stack(
            [
                THEIRS[loss](torch.sigmoid(0.3 * (policy - start)), rating)
                for policy, start, rating in told
            ]
        )

    agree(UFT(beta=0.3, loss=loss), scored(records, seed=4, dtype=torch.float64), theirs)


def test_pairs_are_trls_dpo() -> None:
    agree(UFT(beta=0.3), some_pairs(), trl_dpo("sigmoid", 0.3))
