"""Intervals, paired differences and ranks, against values computed by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from onestage.stats import (
    Weighted,
    estimate,
    holm,
    interval,
    mean_of,
    paired,
    rank_slope,
)


def test_the_interval_is_students() -> None:
    """1, 2, 3: mean 2, sd 1, t(.975, 2) = 4.302653, half = 4.302653 / sqrt 3."""
    found = interval([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.high - 2.0 == pytest.approx(2.484138, abs=1e-6)
    assert math.isnan(interval([1.0]).low)
    assert interval([0.5, 0.5]).low == 0.5


def test_pairs_share_their_seeds() -> None:
    """Differences .1, .1, .2: t = .1333 / (.057735 / sqrt 3) = 4."""
    found, p = paired([0.3, 0.5, 0.9], [0.2, 0.4, 0.7])
    assert found.mean == pytest.approx(0.4 / 3)
    assert p == pytest.approx(2 * stats.t.sf(4.0, 2), abs=1e-9)


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=8, unique=True))
def test_p_below_five_percent_just_when_the_interval_excludes_zero(values: list[float]) -> None:
    found, p = paired(values, [0.0] * len(values))
    if abs(p - 0.05) > 1e-6:
        assert (p < 0.05) == (found.low > 0 or found.high < 0)


def test_holm() -> None:
    """.01, .04, .03 sorted: 3 x .01, 2 x .03, then not less than before."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert math.isnan(holm([math.nan, 0.5])[0])


def test_rank_slope() -> None:
    assert rank_slope([1, 2, 3, 9]) == pytest.approx(1)
    assert rank_slope([3, 2, 1]) == pytest.approx(-1)
    assert rank_slope([2, 2, 2]) == 0


def test_an_estimate_keeps_what_each_item_adds() -> None:
    """1, 0, 1, 1: mean .75, sd .5, standard error .25; against 0, 0, 1, 1 the difference is one item's:
    .25, with sd .5 of 1, 0, 0, 0. Weighted .5 x 2 and 1 x 1: 2 / 3."""
    left = estimate({"a": 1.0, "b": 0.0, "c": 1.0, "d": 1.0})
    assert (left.value, left.stderr, left.n) == (0.75, pytest.approx(0.25), 4)
    gained = left - estimate({"a": 0.0, "b": 0.0, "c": 1.0, "d": 1.0})
    assert gained.value == pytest.approx(0.25)
    assert gained.stderr == pytest.approx(0.25)
    assert gained.half == pytest.approx(3.182446 * 0.25, abs=1e-6)
    assert (left - left).stderr == 0.0
    ratio = estimate({"a": Weighted(0.5, 2), "b": Weighted(1.0, 1)})
    assert ratio.value == pytest.approx(2 / 3)
    # residuals 2 (-1/6) and 1/3, over the whole weight 3, times sqrt 2
    assert ratio.stderr == pytest.approx(math.sqrt(2 * (1 / 9 + 1 / 9)) / 3)
    assert math.isnan(estimate({"a": 1.0}).stderr)


def test_a_mean_of_two_numbers_of_the_same_items_knows_that_they_go_together() -> None:
    """The same numbers twice are no more certain; those of other items are, by sqrt 2."""
    one = estimate({"a": 1.0, "b": 0.0, "c": 1.0, "d": 1.0})
    assert mean_of([one, one]).stderr == pytest.approx(0.25)
    other = estimate({"e": 1.0, "f": 0.0, "g": 1.0, "h": 1.0})
    assert mean_of([one, other]).stderr == pytest.approx(0.25 / math.sqrt(2))
    assert estimate({"a": math.log(2), "b": math.log(8)}).exp().value == pytest.approx(4)
