"""Nash-MTL: two terms in closed form, many by their equations, and TorchJD's where its solver is."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from test_raco import slopes

from onestage.schedules.nash_mtl import NashMTL, bargain


def test_two_terms_in_closed_form() -> None:
    """a x^2 + b x y = 1/2 = c y^2 + b x y, so y = x sqrt(a / c), 2 x^2 (a + b sqrt(a / c)) = 1."""
    a, b, c = 4.0, -0.6, 0.25
    found = bargain([[a, b], [b, c]], [0.5, 0.5])
    x = math.sqrt(1 / (2 * (a + b * math.sqrt(a / c))))
    assert found == pytest.approx([x, x * math.sqrt(a / c)], rel=1e-6)


def test_a_loss_times_a_constant_changes_nothing() -> None:
    weights = {"a": 0.3, "b": 0.7}
    small = slopes({"a": (1.0, 0.2), "b": (-0.4, 1.0)})
    large = slopes({"a": (10.0, 2.0), "b": (-0.4, 1.0)})
    here, there = (NashMTL(weights).combine(one) for one in (small, large))
    directions = [
        (here["a"] * 0.3 * 1.0 - here["b"] * 0.7 * 0.4, here["a"] * 0.3 * 0.2 + here["b"] * 0.7),
        (there["a"] * 3.0 - there["b"] * 0.7 * 0.4, there["a"] * 0.6 + there["b"] * 0.7),
    ]
    angles = [math.atan2(y, x) for x, y in directions]
    assert angles[0] == pytest.approx(angles[1], abs=1e-6)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_the_equations_hold(size: int) -> None:
    draw = random.Random(size)
    rows = [[draw.gauss(0, 1) for _ in range(size + 2)] for _ in range(size)]
    inner = [[sum(x * y for x, y in zip(a, b, strict=True)) for b in rows] for a in rows]
    given = [draw.random() + 0.1 for _ in range(size)]
    found = bargain(inner, given)
    for row, weight, a in zip(inner, given, found, strict=True):
        assert sum(x * y for x, y in zip(row, found, strict=True)) == pytest.approx(
            weight / a, rel=1e-5
        )


def test_opposed_gradients_give_finite_numbers() -> None:
    found = NashMTL({"a": 1, "b": 1}).combine(slopes({"a": (1.0, 0.0), "b": (-1.0, 0.0)}))
    assert all(math.isfinite(x) and x > 0 for x in found.values())
    assert found["a"] == pytest.approx(found["b"])


def test_torchjd_says_the_same() -> None:
    pytest.importorskip("ecos", reason="TorchJD's solver for it")
    torch = pytest.importorskip("torch")
    aggregation: Any = pytest.importorskip("torchjd.aggregation")
    rows = torch.tensor([[1.0, 0.3, 0.0], [-0.4, 0.5, 0.4]])
    theirs = aggregation.NashMTL(n_tasks=2, max_norm=0.0, optim_niter=100)(rows)
    given = {"a": tuple(rows[0].tolist()), "b": tuple(rows[1].tolist())}
    found = NashMTL({"a": 1, "b": 1}).combine(slopes(given))
    mine = found["a"] * rows[0] + found["b"] * rows[1]
    cosine = torch.nn.functional.cosine_similarity(mine, theirs, dim=0)
    assert float(cosine) == pytest.approx(1.0, abs=1e-3)
