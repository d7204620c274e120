"""RACO: two terms by hand, three against a fine grid, CAGrad of TorchJD without the clip."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest

from onestage.schedules import Slopes, make
from onestage.schedules.raco import Raco

AXES = {"a": (1.0, 0.0), "b": (0.0, 1.0)}


def slopes(gradients: dict[str, tuple[float, ...]]) -> Slopes:
    return Slopes(
        {
            one: {
                other: sum(x * y for x, y in zip(left, right, strict=True))
                for other, right in gradients.items()
            }
            for one, left in gradients.items()
        }
    )


def test_at_right_angles_by_hand() -> None:
    """g1 = (1, 0), g2 = (0, 1), w = 1/2 each: p = w by symmetry, the correction points along g0."""
    found = Raco({"a": 1, "b": 1}).combine(slopes(AXES))
    # c |g0| / |g_p| = .4 of each weight's own share.
    assert found == {"a": pytest.approx(1.4), "b": pytest.approx(1.4)}


def test_no_term_gets_more_of_the_correction_than_its_weight() -> None:
    """g1 = (1, -4), g2 = (-1, 1), w = (.2, .8), c = .5: p1 is .356, clipped to .2."""
    rows = slopes({"a": (1.0, -4.0), "b": (-1.0, 1.0)})
    g0 = [0.2 - 0.8, -0.8 + 0.8]
    size = math.hypot(*g0)

    def worst(p: float) -> float:
        g = [p - (1 - p), -4 * p + (1 - p)]
        return g[0] * g0[0] + g[1] * g0[1] + 0.5 * size * math.hypot(*g)

    p = min((n / 100_000 for n in range(100_001)), key=worst)
    assert p == pytest.approx(0.356145, abs=2e-5)
    for clip, (p1, p2) in ((True, (0.2, 1 - p)), (False, (p, 1 - p))):
        more = 0.5 * size / math.hypot(p1 - p2, p2 - 4 * p1)
        found = Raco({"a": 0.2, "b": 0.8}, c=0.5, clip=clip).combine(rows)
        assert found["a"] == pytest.approx(1 + more * p1 / 0.2, rel=1e-3)
        assert found["b"] == pytest.approx(1 + more * p2 / 0.8, rel=1e-3)


def test_three_terms_are_as_good_as_a_fine_grid() -> None:
    gradients = {"a": (1.0, 0.1, 0.0), "b": (-0.8, 0.5, 0.2), "c": (0.3, -0.9, 0.6)}
    rows, given = slopes(gradients).inner, {"a": 0.5, "b": 0.3, "c": 0.2}
    terms = list(given)

    def worst(p: dict[str, float]) -> float:
        def inner(left: dict[str, float], right: dict[str, float]) -> float:
            return sum(left[i] * right[j] * rows[i][j] for i, j in product(terms, terms))

        return inner(p, given) + 0.4 * math.sqrt(inner(given, given) * inner(p, p))

    found = Raco(given, clip=False).combine(slopes(gradients))
    p = {term: (found[term] - 1) * given[term] for term in terms}
    total = sum(p.values())
    mine = worst({term: x / total for term, x in p.items()})
    grid = [(i / 60, j / 60) for i in range(61) for j in range(61 - i)]
    assert mine <= min(worst({"a": x, "b": y, "c": 1 - x - y}) for x, y in grid) + 1e-9


def test_without_the_clip_and_with_equal_weights_it_is_cagrad() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("clarabel", reason="extra: gradients")
    aggregation: Any = pytest.importorskip("torchjd.aggregation")
    rows = torch.tensor([[1.0, 0.3, 0.0], [-0.7, 0.5, 0.4]])
    theirs = aggregation.CAGrad(c=0.4)(rows)
    given = {"a": tuple(rows[0].tolist()), "b": tuple(rows[1].tolist())}
    found = Raco({"a": 1, "b": 1}, clip=False).combine(slopes(given))
    mine = 0.5 * (found["a"] * rows[0] + found["b"] * rows[1])
    assert mine.tolist() == pytest.approx(theirs.tolist(), abs=1e-3)


def test_no_gradient_at_all() -> None:
    assert Raco({"a": 1, "b": 1}).combine(slopes({"a": (0.0,), "b": (0.0,)})) == {"a": 1, "b": 1}


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="c must be in"):
        make({"name": "raco", "c": 1.5})
