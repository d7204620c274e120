"""Weights drawn back until a bound holds: the line, and how far along it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from onestage.training.drawn import NEAR, STEEP, TRIES, Drawing, Line, prices


def test_a_part_of_the_way_by_hand() -> None:
    """Half of the way, then half of what is left; other tensors of the same names go the same way."""
    weights = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[4.0]])}
    line = Line(weights)
    weights["a"] += torch.tensor([2.0, -4.0])
    line.draw(0.5)
    assert weights["a"].tolist() == [2.0, 0.0]
    line.draw(0.5)
    assert weights["a"].tolist() == [1.5, 1.0]
    mean = {"a": torch.tensor([3.0, 2.0]), "b": torch.tensor([[0.0]]), "value_head": torch.ones(1)}
    line.draw(0.25, mean)
    assert (mean["a"].tolist(), mean["b"].item(), mean["value_head"].item()) == (
        [1.5, 2.0],
        3.0,
        1.0,
    )


@given(st.floats(1.0, 6.0), st.floats(0.1, 1e4))
def test_whatever_the_power_a_bound_is_met_and_little_is_given_away(
    power: float, over: float
) -> None:
    """x = over * part^power: drawn back to the bound, and to it alone where it is known how."""
    part, asked = 1.0, 0
    drawing = Drawing()

    def draw(by: float) -> None:
        nonlocal part
        part *= by

    def again() -> float:
        nonlocal asked
        asked += 1
        return over * part**power

    left = drawing.until(over, draw, again)
    assert left == pytest.approx(part)
    assert over * part**power <= 1 + NEAR + 1e-9
    assert asked <= TRIES
    assert (part == 1) == (over <= 1 + NEAR)
    if part < 1 and 2 <= power <= 5:  # it has learned the power: the next time one try is enough
        asked, part, over = 0, 1.0, 1.5
        drawing.until(over, draw, again)
        assert asked == 1
        assert over * part**power == pytest.approx(1, abs=NEAR)


def test_what_is_no_number_moves_nothing() -> None:
    def no(part: float) -> None:
        raise AssertionError("nothing tells how far")

    assert Drawing().until(float("nan"), no, lambda: 0.0) == 1.0


def test_what_is_beyond_all_measure_goes_back_to_the_start() -> None:
    drawn: list[float] = []
    drawing = Drawing()
    assert drawing.until(float("inf"), drawn.append, lambda: 0.5) == 0.0
    assert (drawn, drawing.steep) == ([0.0], STEEP)


def test_a_hill_on_the_way_is_gone_over() -> None:
    """x falls from 1.2 to 1.05 and rises to 1.3 before it falls to 0 (seen of a tiny model)."""
    part = 1.0

    def draw(by: float) -> None:
        nonlocal part
        part *= by

    def again() -> float:
        return 1.2 - 1.5 * (1 - part) if part > 0.9 else min(1.3, 4 * part**2)

    Drawing().until(1.2, draw, again)
    assert again() <= 1 + NEAR
    assert part > 0.1


def test_a_price_by_hand() -> None:
    """From 1 the weight went to 3; the goal is (w - 5)^2, x is (w - 1)^2, another does not fall. At .9
    of the way stands 2.8: the goal is 4.84 for 4, and x 3.24 for 4. The weight is what it was."""
    weight = torch.tensor([3.0])
    line = Line({"w": weight})
    line.start["w"] = torch.tensor([1.0])

    def measure() -> tuple[float, dict[str, float]]:
        w = float(weight)
        return (w - 5) ** 2, {"x": (w - 1) ** 2, "flat": 0.0}

    found = prices(line, line.weights, measure)
    assert found == {"x": pytest.approx((4.84 - 4) / (4 - 3.24), rel=1e-5)}
    assert weight.item() == 3.0
