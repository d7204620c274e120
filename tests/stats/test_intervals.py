"""Intervals, paired differences and ranks, against values computed by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from onestage.stats import holm, interval, paired, rank_slope


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
