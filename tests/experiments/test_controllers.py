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
