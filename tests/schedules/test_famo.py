"""FAMO beside a torch module that does what the paper's algorithm says, and its limiting cases."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from onestage.schedules.famo import Famo

LOSSES = [{"a": 2.0 / (1 + step), "b": 3.0 - 0.1 * step} for step in range(12)]


def test_it_is_the_algorithm_of_the_paper() -> None:
    """xi by torch's autograd through softmax and torch's own Adam with weight decay."""
    mine = Famo({"a": 1, "b": 1}, ema_rate=1.0, optimum={"b": 0.5})
    xi = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([xi], lr=0.025, weight_decay=0.01)
    above = [torch.tensor([one["a"], one["b"] - 0.5], dtype=torch.float64) for one in LOSSES]
    mine.observe(0, LOSSES[0])
    for step, (before, now) in enumerate(itertools.pairwise(above), 1):
        z = torch.softmax(xi, -1)
        weight = (z / before).detach()
        found = mine.weigh(step)
        assert list(found.values()) == pytest.approx((weight / weight.sum()).tolist())
        adam.zero_grad()
        (xi.grad,) = torch.autograd.grad(z, xi, grad_outputs=before.log() - now.log())
        adam.step()
        mine.observe(step, LOSSES[step])
        assert [mine.logits["a"], mine.logits["b"]] == pytest.approx(xi.tolist(), rel=1e-6)


def test_the_term_that_falls_more_slowly_gains_and_scale_is_nothing() -> None:
    plain, large = Famo({"a": 1, "b": 1}), Famo({"a": 1, "b": 1})
    for step, one in enumerate(LOSSES):
        plain.observe(step, one)
        large.observe(step, {"a": one["a"], "b": 100 * one["b"]})
    assert plain.z["b"] > 0.55
    assert large.z == pytest.approx(plain.z)
    assert plain.above["b"] < 3
    ratio = plain.weigh(9)["b"] / large.weigh(9)["b"] * (large.weigh(9)["a"] / plain.weigh(9)["a"])
    assert ratio == pytest.approx(100)


def test_losses_below_their_best_and_missing_ones() -> None:
    found = Famo({"a": 1, "b": 3}, optimum={"a": 5.0})
    assert found.weigh(0) == {"a": 0.25, "b": 0.75}
    found.observe(0, {"a": 1.0, "b": math.nan})
    assert found.above == {"a": 1e-3}
    assert math.isfinite(found.weigh(1)["a"])
    with pytest.raises(ValueError, match="did you mean 'sft'"):
        Famo({"sft": 1}, optimum={"sff": 1})
    with pytest.raises(ValueError, match="famo: needs rate"):
        Famo(rate=0)
