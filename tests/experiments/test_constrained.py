"""Forgetting as a constraint where the constrained optimum is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from experiments.convex import problem as convex
from experiments.convex.constrained import (
    controlled,
    descend,
    kept_b,
    optimum,
    optimum_a,
    start,
)
from onestage.schedules._multiplier import Multiplier


@pytest.mark.parametrize("bound", [0.01, 0.2])
def test_on_the_line_bisection_finds_the_closed_form(bound: float) -> None:
    problem = convex.construction_a(3.0)
    theta, price = optimum(problem, bound)
    assert (theta[0], price) == pytest.approx(optimum_a(bound), rel=1e-5)
    assert problem.second.loss(theta) == pytest.approx(math.log(2) + bound)


def test_the_price_is_what_a_little_more_room_is_worth() -> None:
    problem = kept_b()
    best, price = optimum(problem, 0.05)
    more, _ = optimum(problem, 0.05 + 1e-4)
    assert float(problem.first.loss(best) - problem.first.loss(more)) / 1e-4 == pytest.approx(
        price, rel=0.01
    )
    slack, none = optimum(problem, 0.5)
    assert none == 0
    assert slack == pytest.approx(problem.argmin(1.0))


def test_the_kl_is_that_of_the_answers() -> None:
    """Beside the definition: sum p log(p / q) over the two answers of each prompt, p = 1/2."""
    problem, theta = kept_b(), np.array([0.4, -0.9])
    by_hand = [
        sum(0.5 * math.log(0.5 / q) for q in (s, 1 - s))
        for s in (1 / (1 + math.exp(-(theta @ np.array(z)))) for z in convex.DEMONSTRATIONS)
    ]
    assert float(problem.second.loss(theta)) - start(problem) == pytest.approx(np.mean(by_hand))


@pytest.mark.parametrize("batch", [0, 16])
@pytest.mark.parametrize("bound", [0.01, 0.15])
def test_the_controller_holds_the_bound_near_the_constrained_optimum(
    bound: float, batch: int
) -> None:
    problem, seeds = kept_b(), 4
    best, price = optimum(problem, bound)
    made = [Multiplier(bound) for _ in range(seeds)]
    theta, seen = descend(problem, controlled(made), seeds, batch)
    x = problem.second.loss(theta) - start(problem)
    assert (x <= bound).all()
    assert x.mean() == pytest.approx(0.9 * bound, rel=0.1)  # the margin's aim
    assert seen.max() < 1.7 * bound
    gain = float(problem.first.loss(np.zeros(2)) - problem.first.loss(best))
    lost = float((problem.first.loss(theta) - problem.first.loss(best)).mean())
    assert 0 < lost < 0.1 * gain
    assert np.mean([one.weight for one in made]) == pytest.approx(price, rel=0.25)
