"""Uncertainty weights: a step by hand, and where they settle."""

from __future__ import annotations

import math

import pytest
import torch

from onestage.schedules.uncertainty import Uncertainty


def test_a_step_is_that_of_the_loss_it_minimises() -> None:
    found, losses = Uncertainty({"a": 1, "b": 1}, optimum={"b": 1.0}), {"a": 2.0, "b": 1.3}
    s = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    for step in range(5):
        found.observe(step, losses)
        ((torch.exp(-s) * torch.tensor([2.0, 0.3])).sum() + s.sum() / 2).backward()
        with torch.no_grad():
            s -= 0.05 * s.grad
        s.grad = None
    assert [found.logs["a"], found.logs["b"]] == pytest.approx(s.tolist(), rel=1e-6)


def test_it_settles_where_weight_times_loss_is_the_same() -> None:
    found = Uncertainty({"a": 1, "b": 1})
    for step in range(2000):
        found.observe(step, {"a": 4.0, "b": 1.0})
    assert found.weigh(0) == pytest.approx({"a": 0.2, "b": 0.8}, abs=1e-3)
    found.observe(0, {"a": math.nan, "b": 1e9})
    assert all(map(math.isfinite, found.weigh(1).values()))
    with pytest.raises(ValueError, match="rate must be"):
        Uncertainty(rate=0)
