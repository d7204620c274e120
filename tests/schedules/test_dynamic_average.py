"""Dynamic weight average by hand."""

from __future__ import annotations

import math

import pytest

from onestage.schedules.dynamic_average import DynamicAverage


def test_two_windows_by_hand() -> None:
    found = DynamicAverage({"a": 1, "b": 3}, window=2)
    for step, (a, b) in enumerate([(4, 2), (2, 2), (2, 1), (1, 1.4)]):
        assert found.weigh(step) == {"a": 0.25, "b": 0.75}
        found.observe(step, {"a": float(a), "b": float(b)})
    first, second = 1 * math.exp(0.5 / 2), 3 * math.exp(0.6 / 2)  # 1.5 / 3 and 1.2 / 2
    assert found.weigh(4)["a"] == pytest.approx(first / (first + second))


def test_a_window_without_a_loss_leaves_the_term_as_it_was() -> None:
    found = DynamicAverage({"a": 1, "b": 1}, window=1)
    for step, b in enumerate([2.0, math.nan, 2.0]):
        found.observe(step, {"a": 1.0, "b": b})
    assert found.weigh(3) == {"a": 0.5, "b": 0.5}
    with pytest.raises(ValueError, match="window >= 1"):
        DynamicAverage(window=0)
