"""Gaps, ideal distance, fronts and hypervolume, by hand."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onestage.stats import front, gaps, hypervolume, ideal_distance, normalised


def test_gaps_raw_and_normalised() -> None:
    losses, best = {"dpo": 0.25, "sft": 1.75, "x": 3.0}, {"dpo": 0.05, "sft": 1.5}
    start = {"dpo": 0.85, "sft": 2.0}
    assert gaps(losses, best) == pytest.approx({"dpo": 0.2, "sft": 0.25})
    assert normalised(losses, best, start) == pytest.approx({"dpo": 0.25, "sft": 0.5})
    assert normalised(losses, best, {"dpo": 0.05, "sft": 2.0}) == pytest.approx({"sft": 0.5})


def test_ideal_distance_reproduces_the_papers_bars() -> None:
    """xright.md 3.4, ALRIGHT on Pythia, lambda .5: the ideal distance from its two losses."""
    gap = gaps({"sft": 1.5889, "dpo": 0.3331}, {"sft": 1.4980, "dpo": 0.0647})
    assert ideal_distance(gap) == pytest.approx(0.283, abs=5e-4)


def test_a_loss_below_its_optimum_is_no_distance() -> None:
    assert ideal_distance({"a": -5.0, "b": 3.0, "c": 4.0}) == 5


def test_the_front() -> None:
    points = [(1.0, 4.0), (2.0, 2.0), (4.0, 1.0), (3.0, 3.0), (2.0, 2.5), (2.0, 2.0)]
    assert front(points) == [0, 1, 2, 5]


def test_hypervolume_by_hand() -> None:
    assert hypervolume([(1, 4), (2, 2), (4, 1)], (5, 5)) == 4 * 1 + 3 * 2 + 1 * 1
    assert hypervolume([(1, 1), (6, 0)], (5, 5)) == 16
    assert hypervolume([], (1, 1)) == 0
    assert hypervolume([(0, 0, 0), (0.5, 0.5, -1)], (1, 1, 1)) == 1 + 0.25
    with pytest.raises(ValueError, match="every point needs 2 losses"):
        hypervolume([(1, 2, 3)], (5, 5))


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), max_size=5))
def test_hypervolume_counts_cells(points: list[tuple[int, ...]]) -> None:
    """Against an independent count of the unit cells that some point dominates."""
    reference = (4, 4, 4)
    cells = sum(
        any(all(a <= c for a, c in zip(point, cell, strict=True)) for point in points)
        for cell in itertools.product(range(4), repeat=3)
    )
    assert hypervolume(points, reference) == pytest.approx(cells)
    assert math.isfinite(ideal_distance(dict(enumerate(reference))))
