"""Weights drawn back to their start: by hand, and the Fisher information beside autograd's own loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from onestage.config import RecipeError
from onestage.data.packing import pack_records
from onestage.training.anchored import Anchored, fisher
from onestage.training.build import build
from onestage.training.recipe import parse_recipe
from onestage.training.run import Run

Make = Callable[..., dict[str, Any]]


def test_a_decay_by_hand() -> None:
    """From 1 to where it started, 0: by a tenth alike, by F = 3 and 1/3, and never past it. What is not
    held (a value head) stays as it is trained."""
    weight, head, run = torch.zeros(2), torch.ones(1), cast("Run", None)
    anchored = Anchored(run, {id(weight): weight.detach().clone()}, {"alike": None})
    weight += 1
    anchored.decay([weight, head], 0.1, {"alike": 1.0})
    assert weight.tolist() == pytest.approx([0.9, 0.9])
    assert head.item() == 1
    anchored.fisher["text"] = {id(weight): torch.tensor([3.0, 1 / 3])}
    weight.fill_(1.0)
    anchored.decay([weight], 0.1, {"text": 1.0})
    assert weight.tolist() == pytest.approx([0.7, 1 - 0.1 / 3])
    anchored.decay([weight], 1.0, {"text": 10.0})
    assert weight.tolist() == pytest.approx([0.0, 0.0])


def test_the_fisher_information_of_some_records(recipe_of: Make, tmp_path: Path) -> None:
    """The mean over records of the squared gradient of a record's log-likelihood, over its mean."""
    run = build(
        parse_recipe(recipe_of("demonstration", objective="sft")), tmp_path / "out", say=print
    )
    records = run.feeds.draw(["sft"])[:3]
    found = fisher(run, records)
    weights = [p for p in run.policy.parameters() if p.requires_grad]
    total = [torch.zeros_like(p) for p in weights]
    run.policy.eval()
    for record in records:
        rows = pack_records([record], 512).rows
        likelihood = sum((run.policy(row).sum() for row in rows), torch.zeros(()))
        for sums, g in zip(total, torch.autograd.grad(likelihood, weights), strict=True):
            sums += g**2
    mean = sum(float(t.sum()) for t in total) / sum(t.numel() for t in total)
    for weight, sums in zip(weights, total, strict=True):
        torch.testing.assert_close(found[id(weight)], sums / mean, rtol=1e-4, atol=1e-6)
    assert all(p.grad is None for p in weights)
    with torch.no_grad():
        weights[0] *= math.inf
    with pytest.raises(RecipeError, match="is not finite"):
        fisher(run, records)
