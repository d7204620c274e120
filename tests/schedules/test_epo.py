"""EPO: directions by hand, and the point that it goes to in closed form."""

from __future__ import annotations

import math

import pytest
from test_raco import slopes

from onestage.schedules import make
from onestage.schedules.epo import EPO, direction

AXES = [[1.0, 0.0], [0.0, 1.0]]


def test_the_worst_one_alone_is_stepped_on_where_that_is_possible() -> None:
    """Losses 3 and 1 at equal weights, gradients at right angles: all weight on the first."""
    assert direction(AXES, [0.5, 0.5], [3.0, 1.0], 1e-4) == pytest.approx([1.0, 0.0])
    assert direction(AXES, [0.25, 0.75], [1.0, 1.0], 1e-4) == pytest.approx([0.0, 1.0])


def test_where_they_are_equal_all_fall() -> None:
    """The greatest sum of falls, none of them a rise: of g1 = (1, 0) and g2 = (-.5, .5)."""
    rows = [[1.0, -0.5], [-0.5, 0.5]]
    found = direction(rows, [0.5, 0.5], [1.0, 1.0], 1e-4)
    falls = [sum(x * y for x, y in zip(row, found, strict=True)) for row in rows]
    assert min(falls) >= -1e-9
    # a - .5 (1 - a) and -.5 a + .5 (1 - a): the sum is .5 a, the second one 0 at a = 1/2.
    assert found == pytest.approx([0.5, 0.5])


def test_another_may_rise_where_that_brings_the_balance() -> None:
    """Opposed gradients: the far one falls although the near one rises."""
    rows = [[1.0, -1.0], [-1.0, 1.0]]
    assert direction(rows, [0.5, 0.5], [5.0, 0.1], 1e-4) == pytest.approx([1.0, 0.0])


def test_three_terms_stay_within_the_simplex() -> None:
    rows = [[1.0, 0.2, -0.3], [0.2, 2.0, 0.1], [-0.3, 0.1, 0.5]]
    found = direction(rows, [0.2, 0.3, 0.5], [1.0, 0.5, 2.0], 1e-4)
    assert sum(found) == pytest.approx(1.0)
    assert min(found) >= 0


def test_a_run_of_it_ends_at_the_chebyshev_point_of_two_parabolas() -> None:
    """f1 = (x - 1)^2 and f2 = (x + 1)^2 at weights .8 and .2: .8 (1 - x)^2 = .2 (1 + x)^2 at x = 1/3."""
    rule = EPO({"a": 0.8, "b": 0.2}, ema_rate=1.0).for_run({"a": 0.8, "b": 0.2}, 150, 0)
    x = -0.9
    for step in range(150):
        rule.observe(step, {"a": (x - 1) ** 2, "b": (x + 1) ** 2})
        gradients = {"a": 2 * (x - 1), "b": 2 * (x + 1)}
        found = rule.combine(slopes({name: (g,) for name, g in gradients.items()}))
        x -= 0.05 * sum(found[name] * rule.share[name] * g for name, g in gradients.items())
    assert x == pytest.approx(1 / 3, abs=0.05)


def test_before_any_loss_is_known_it_is_mix() -> None:
    found = EPO({"a": 1, "b": 3}).combine(slopes({"a": (1.0, 0.0), "b": (0.0, 1.0)}))
    assert found == {"a": 1.0, "b": 1.0}


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="tolerance > 0"):
        make({"name": "epo", "tolerance": 0})
    assert math.isclose(sum(EPO({"a": 1, "b": 3}).weigh(0).values()), 1.0)
