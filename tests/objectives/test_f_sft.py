"""f-divergence SFT: its derivation on a small problem, hand arithmetic, and its limit SFT."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import pytest
import torch
from support.objective_batches import NAN, scored
from torch import Tensor

from onestage.objectives.f_sft import FSFT, Divergence
from onestage.objectives.sft import SFT

# f of t = expert / policy, as textbooks have it (up to multiples of t - 1, which add nothing to D_f).
GENERATORS: dict[str, Callable[[Tensor], Tensor]] = {
    "reverse_kl": lambda t: -t.log(),
    "forward_kl": lambda t: t * t.log(),
    "pearson": lambda t: (t - 1) ** 2,
    "neyman": lambda t: (t - 1) ** 2 / t,
    "hellinger": lambda t: (t.sqrt() - 1) ** 2,
    "js": lambda t: t * t.log() - (t + 1) * ((t + 1) / 2).log(),
}
EXPERT = torch.tensor([0.6, 0.25, 0.1, 0.05], dtype=torch.float64)
REFERENCE = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)


def minimised(loss: Callable[..., Tensor], *start: Tensor) -> list[Tensor]:
    free = [one.clone().requires_grad_() for one in start]
    search = torch.optim.LBFGS(
        free,
        max_iter=500,
        tolerance_grad=1e-11,
        tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        search.zero_grad()
        value = loss(*free)
        value.backward()
        return value

    search.step(closure)
    return [one.detach() for one in free]


def expert_answers(logits: Tensor, offset: Tensor | float):
    """The four answers to one prompt as often as the expert gives them, under a policy and a c."""
    batch = scored([("demonstration", [NAN])] * 4, lengths=[1] * 4, dtype=torch.float64)
    feedback = replace(batch.feedback, weight_N=EXPERT)
    return replace(
        batch,
        feedback=feedback,
        logp_K=logits.log_softmax(0),
        ref_logp_K=REFERENCE.log(),
        state={"offset": offset},
    )


@pytest.mark.parametrize("divergence", get_args(Divergence))
def test_its_minimum_is_that_of_the_divergence_and_the_kl(divergence: Divergence) -> None:
    """Policy and offset found by the loss, and the policy found by what is to be minimised, directly."""
    beta = 0.5

    def primal(logits: Tensor) -> Tensor:
        policy = logits.softmax(0)
        apart = (policy * GENERATORS[divergence](EXPERT / policy)).sum()
        return apart + beta * (policy * (policy / REFERENCE).log()).sum()

    objective = FSFT(beta=beta, divergence=divergence, cap=1e3)
    start = torch.zeros(4, dtype=torch.float64)
    (want,) = minimised(primal, start)
    found, offset = minimised(
        lambda logits, c: objective(expert_answers(logits, c)).loss_U.sum(), start, start[0]
    )
    torch.testing.assert_close(found.softmax(0), want.softmax(0), rtol=0, atol=1e-6)
    # There the weight is the policy over the expert, whose mean is 1, and a step leaves c where it is.
    weight_N = objective.metrics(expert_answers(found, offset))["weight"]
    torch.testing.assert_close(weight_N, want.softmax(0) / EXPERT, rtol=0, atol=1e-5)
    seen = objective(expert_answers(found, float(offset))).observed
    assert seen["weight"][0] == pytest.approx(float((EXPERT * weight_N).sum()))
    assert seen["weight"][1] == pytest.approx(1.0)
    means = {name: total / count for name, (total, count) in seen.items()}
    assert objective.advance({"offset": float(offset)}, means) == pytest.approx(
        {"offset": float(offset)}, abs=1e-6
    )


@pytest.mark.parametrize("divergence", ["forward_kl", "hellinger", "neyman"])
def test_trained_step_by_step_with_the_offset_it_learns_it_comes_there_too(
    divergence: Divergence,
) -> None:
    """Of these the policy depends on c, and c on answers counting by their weights."""
    objective, beta = FSFT(beta=0.5, divergence=divergence, cap=1e3), 0.5
    start = torch.zeros(4, dtype=torch.float64)

    def primal(logits: Tensor) -> Tensor:
        policy = logits.softmax(0)
        apart = (policy * GENERATORS[divergence](EXPERT / policy)).sum()
        return apart + beta * (policy * (policy / REFERENCE).log()).sum()

    (want,) = minimised(primal, start)
    logits, state = REFERENCE.log().requires_grad_(), objective.start()
    steps = torch.optim.SGD([logits], lr=0.5)
    for _ in range(150):
        loss = objective(expert_answers(logits, state["offset"]))
        steps.zero_grad()
        loss.loss_U.sum().backward()
        steps.step()
        state = objective.advance(state, {k: s / n for k, (s, n) in loss.observed.items()})
    torch.testing.assert_close(logits.softmax(0).detach(), want.softmax(0), rtol=0, atol=2e-4)


SLOPES: dict[str, Callable[[float], float]] = {
    "reverse_kl": lambda u: math.exp(-u),
    "forward_kl": lambda u: 1 / (1 + u),
    "pearson": lambda u: (1 + u) ** -0.5,
    "neyman": lambda u: 1 - u / 2,
    "hellinger": lambda u: (1 + u) ** -2,
    "js": lambda u: 1 / (2 * math.exp(u) - 1),
}


@pytest.mark.parametrize("divergence", get_args(Divergence))
@pytest.mark.parametrize("nats", [1.0, 3.0, -1.0])
def test_the_offset_keeps_up_with_log_ratios_that_grow(divergence: Divergence, nats: float) -> None:
    """Each step D is larger by so many nats. The weight comes to rest where what c makes up in a step is
    what D moves: 1 + rate (w - 1) = g'(beta nats). (Steps of rate (w - 1) are at most rate.)"""
    objective = FSFT(divergence=divergence)
    state, weight = objective.start(), 1.0
    for step in range(60):
        batch = scored([("demonstration", [NAN])], log_ratios=[nats * step], dtype=torch.float64)
        seen = objective(replace(batch, state=state)).observed
        weight = seen["weight"][0]
        state = objective.advance(state, {name: total for name, (total, _) in seen.items()})
    assert weight == pytest.approx(1 + (SLOPES[divergence](0.1 * nats) - 1) / 0.5, abs=2e-3)


def test_the_reverse_kls_minimum_is_a_mixture_whatever_the_offset() -> None:
    """Of KL(pi || mu) + beta KL(pi || ref): mu^(1 / (1 + beta)) ref^(beta / (1 + beta)), by hand."""
    objective = FSFT(beta=0.5, cap=1e3)
    (found,) = minimised(
        lambda logits: objective(expert_answers(logits, 0.7)).loss_U.sum(),
        torch.zeros(4, dtype=torch.float64),
    )
    mixed = EXPERT ** (2 / 3) * REFERENCE ** (1 / 3)
    torch.testing.assert_close(found.softmax(0), mixed / mixed.sum(), rtol=0, atol=1e-6)


WEIGHTS = {
    "reverse_kl": math.exp(-0.5),
    "forward_kl": 1 / 1.5,
    "pearson": 1 / math.sqrt(1.5),
    "neyman": 0.75,
    "hellinger": 1 / 2.25,
    "js": 1 / (2 * math.exp(0.5) - 1),
}


@pytest.mark.parametrize("divergence", get_args(Divergence))
def test_its_gradient_is_the_likelihoods_times_the_weight(divergence: Divergence) -> None:
    """u = .1 * 2 + .3 = .5, and one so far below that its weight is the cap, without an end."""
    objective = FSFT(divergence=divergence, cap=4.0)
    batch = scored(
        [("demonstration", [NAN])] * 2, log_ratios=[2.0, -9000.0], lengths=[2, 3], seed=1
    )
    logp_K = batch.logp_K.clone().requires_grad_()
    batch = replace(batch, logp_K=logp_K, state={"offset": 0.3})
    loss = objective(batch)
    (slope_K,) = torch.autograd.grad(loss.loss_U.sum(), logp_K)
    want = [-WEIGHTS[divergence]] * 2 + [-4.0] * 3
    assert slope_K.tolist() == pytest.approx(want, rel=1e-4)
    assert loss.metrics["weight"].value_M.tolist() == pytest.approx([-want[0], 4.0], rel=1e-4)
    assert bool(loss.loss_U.isfinite().all())


def test_where_neymans_weight_has_gone_nothing_is_taught() -> None:
    batch = scored([("demonstration", [NAN])], log_ratios=[40.0], lengths=[2])
    logp_K = batch.logp_K.clone().requires_grad_()
    loss = FSFT(divergence="neyman")(replace(batch, logp_K=logp_K, state={"offset": 0.0})).loss_U
    assert loss.item() == pytest.approx(-10.0)  # g = 1 from u = 2 on
    assert not bool(torch.autograd.grad(loss.sum(), logp_K)[0].any())


def test_the_first_step_and_a_small_beta_are_sfts() -> None:
    batch = scored([("pair", [NAN, NAN]), ("label", [0.0]), ("text", [NAN])], seed=3)

    def slope_K(objective: FSFT | SFT, at: Tensor) -> Tensor:
        logp_K = at.clone().requires_grad_()
        loss = objective(replace(batch, logp_K=logp_K))
        return torch.autograd.grad(loss.mean(), logp_K)[0]

    want_K = slope_K(SFT(reduction="sum"), batch.logp_K)
    for divergence in get_args(Divergence):
        first = FSFT(divergence=divergence)
        torch.testing.assert_close(slope_K(first, batch.ref_logp_K), want_K)
        small = FSFT(beta=1e-5, divergence=divergence)
        torch.testing.assert_close(slope_K(small, batch.logp_K), want_K, rtol=1e-3, atol=1e-6)


def test_the_offset_moves_until_the_weights_have_a_mean_of_one() -> None:
    """Answers of u - c = 1 and 3 under e^-u: c = log((e^-1 + e^-3) / 2). Thumbs down say nothing."""
    objective = FSFT(beta=1.0)
    batch = scored(
        [("demonstration", [NAN]), ("label", [1.0]), ("label", [0.0])], log_ratios=[1.0, 3.0, -50.0]
    )
    state = objective.start()
    for _ in range(200):
        seen = objective(replace(batch, state=state)).observed
        assert {count for _, count in seen.values()} == {2}
        state = objective.advance(state, {name: total / 2 for name, (total, _) in seen.items()})
    assert state["offset"] == pytest.approx(math.log((math.exp(-1) + math.exp(-3)) / 2), abs=1e-4)
    assert objective.advance(state, {}) == state


@pytest.mark.parametrize(
    ("options", "told"),
    [({"beta": 0.0}, "beta"), ({"cap": 1.0}, "cap"), ({"rate": 1.0}, "rate")],
)
def test_bad_options(options: dict[str, float], told: str) -> None:
    with pytest.raises(ValueError, match=f"f_sft: {told}"):
        FSFT(**options)  # type: ignore[arg-type]


def conjugate(divergence: Divergence, u: float) -> tuple[float, float]:
    """Where f*(r) = u: r, and 1 / t of the t at which f*(r) = max_t (r t - f(t)) is reached. Of the
    textbook's f, less what makes f'(1) = 0; found by halving, since r = f'(t) and f* grow with t."""

    def f_and_slope(t: float) -> tuple[float, float]:
        at = torch.tensor(t, dtype=torch.float64, requires_grad=True)
        value = GENERATORS[divergence](at)
        return value.item(), torch.autograd.grad(value, at)[0].item()

    tilt = f_and_slope(1.0)[1]
    low, high = -5.0, 5.0  # log t
    for _ in range(60):
        middle = (low + high) / 2
        t = math.exp(middle)
        value, slope = f_and_slope(t)
        r = slope - tilt
        low, high = (middle, high) if r * t - (value - tilt * (t - 1)) < u else (low, middle)
    return r, 1 / t


@pytest.mark.parametrize("divergence", get_args(Divergence))
def test_the_loss_by_the_conjugate_that_is_searched_for(divergence: Divergence) -> None:
    """A second opinion about g and its slope: both out of the definition of f*, without a formula."""
    ratios, lengths = [2.5, -3.0, 0.0], [2, 1, 3]
    batch = scored(
        [("demonstration", [NAN])] * 3, log_ratios=ratios, lengths=lengths, dtype=torch.float64
    )
    logp_K = batch.logp_K.clone().requires_grad_()
    loss_U = FSFT(divergence=divergence)(
        replace(batch, logp_K=logp_K, state={"offset": 0.2})
    ).loss_U
    (slope_K,) = torch.autograd.grad(loss_U.sum(), logp_K)
    found = [conjugate(divergence, 0.1 * ratio + 0.2) for ratio in ratios]
    assert loss_U.tolist() == pytest.approx([(0.2 - r) / 0.1 for r, _ in found], rel=1e-5, abs=1e-7)
    want = [
        -weight for (_, weight), length in zip(found, lengths, strict=True) for _ in range(length)
    ]
    assert slope_K.tolist() == pytest.approx(want, rel=1e-5)
