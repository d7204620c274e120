"""The controllers' table: what it is made of, on a run short enough for a test."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.convex import controllers
from experiments.convex import problem as convex

B = convex.construction_b()


def test_a_point_of_the_front_is_not_behind_it() -> None:
    assert controllers.behind(B, B.argmin(0.3)[None]) == pytest.approx(0, abs=1e-4)
    worse = B.argmin(0.3) + np.array([[0.0, 0.4]])
    assert controllers.behind(B, worse) > 0.001


@pytest.mark.parametrize("rule", ["pcgrad", "mgda"])
def test_surgery_goes_to_the_front(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchjd")
    monkeypatch.setattr(controllers, "STEPS", 200)
    found = controllers.operated(B, rule, 0.5, seeds=1)
    assert controllers.behind(B, found) < 0.03
    assert float(B.mixture(found, 0.5)[0]) < 0.69


@pytest.mark.parametrize("name", controllers.TOLD)
def test_what_is_told_of_gradients_goes_where_it_says(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACO to argmin F, EPO to the Chebyshev point, Nash-MTL and GAC somewhere on the front."""
    monkeypatch.setattr(controllers, "STEPS", 300)
    found = controllers.informed(B, name, 0.5, seeds=1)
    assert controllers.behind(B, found) < 0.03
    goal = {"raco": B.argmin(0.5), "epo": B.chebyshev(0.5)[0]}.get(name)
    if goal is not None:
        assert np.array(B.gaps(found))[:, 0] == pytest.approx(np.array(B.gaps(goal)), abs=0.03)
