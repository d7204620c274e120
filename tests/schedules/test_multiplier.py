"""The multiplier of a constraint: its arithmetic by hand, and what it never does."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onestage.schedules._multiplier import FIRST, LEAST, MOST, PATIENCE, Multiplier


def test_a_step_by_hand() -> None:
    """Bound .1, aim .09: x = .14 is half a bound too much. s = log .05 + .2 / 2, and 1 / 2 beside it."""
    found = Multiplier(0.1)
    assert found.weight == pytest.approx(FIRST / 0.1)
    found.observe(0.14)
    assert found.error == pytest.approx(0.5)
    assert found.weight == pytest.approx(FIRST * math.exp(0.1 + 0.5) / 0.1)
    found.observe(0.04)  # the mean of both is at the aim
    assert found.mean == pytest.approx(0.09)
    assert found.weight == pytest.approx(FIRST * math.exp(0.1) / 0.1)
    found.observe(-0.01)  # the mean is .04, half a bound below: falls at half the rate
    assert found.weight == pytest.approx(FIRST * math.exp(0.1 - 0.05 - 0.5) / 0.1)
    assert found.slack == pytest.approx(0.06)


def test_room_that_is_told_by_hand() -> None:
    """Bound .1, room .02 then .04 (smoothed .03): x = .12 is .4 of a bound beyond, then .13 has a mean
    of .125, .55 beyond. Drawn back to .05, it goes on from there."""
    found = Multiplier(0.1)
    found.observe(0.12, 0.02)
    assert (found.aim, found.error) == pytest.approx((0.08, 0.4))
    found.observe(0.13, 0.04)
    assert (found.aim, found.error) == pytest.approx((0.07, 0.55))
    level = found.level
    found.drew(0.05)
    assert (found.mean, found.level) == (0.05, level)
    found.observe(0.09, 0.03)
    assert (found.mean, found.error) == pytest.approx((0.07, 0.0))
    found.drew(math.nan)  # which says nothing of where x is now
    assert found.mean == pytest.approx(0.07)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60))
def test_no_bang_bang_and_no_windup(values: list[float]) -> None:
    """Whatever is measured, a step moves the weight by a bounded factor, and leaves a border."""
    found = Multiplier(0.1)
    for value in values:
        before = found.worth
        found.observe(value)
        assert LEAST * 0.999 <= found.worth <= MOST * 1.001
        assert abs(math.log(found.worth / before)) <= 2 * found.proportional + found.integral + 1e-9
    for _ in range(100):
        found.observe(1e9)
    for _ in range(30):  # the running mean forgets by halves
        found.observe(-1e9)
    at = found.worth
    assert at < MOST
    for _ in range(200):
        found.observe(-1.0)
    assert found.worth == pytest.approx(LEAST)


def test_a_state_is_all_there_is() -> None:
    one, other = Multiplier(0.05), Multiplier(0.05)
    for step in range(30):
        one.observe(0.05 + 0.02 * math.sin(step), 0.001 * (step % 5))
        if step == 12:
            other.restore(json.loads(json.dumps(one.state())))
        if step > 12:
            other.observe(0.05 + 0.02 * math.sin(step), 0.001 * (step % 5))
    assert one == other


def test_a_bound_that_nothing_holds_is_known_and_can_be_relaxed() -> None:
    found = Multiplier(0.1)
    for _ in range(60):
        found.observe(0.3)
    assert found.lost
    assert found.relax() == pytest.approx(0.31)
    assert not found.lost
    assert Multiplier(0.1).relax() == 0.1  # nothing was measured yet
    lost = Multiplier(0.1)
    for _ in range(PATIENCE + 30):
        lost.observe(math.nan)
    assert lost.lost


@pytest.mark.parametrize(
    "options", [{"margin": 1.0}, {"smooth": 0.0}, {"first": 0.0}, {"scale": -1}]
)
def test_numbers_that_mean_nothing_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must lie in|above 0"):
        Multiplier(0.1, **options)


def test_a_weight_that_stays_is_moved_by_nothing_and_gives_nothing_up() -> None:
    fixed = Multiplier(0.05, held=3.0)
    for _ in range(PATIENCE + 30):
        fixed.observe(9.0)
    assert (fixed.weight, fixed.lost, fixed.slack) == (3.0, False, pytest.approx(-8.95))
    with pytest.raises(ValueError, match="at least 0, got -1"):
        Multiplier(0.05, held=-1.0)
