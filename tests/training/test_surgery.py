"""Gradient surgery: beside TorchJD's own aggregators on whole gradients, by hand, and in a run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from onestage.config import RecipeError
from onestage.runfolder import read_metrics
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe
from onestage.training.surgery import Surgeon, weighing

torchjd = pytest.importorskip("torchjd.aggregation")
Make = Callable[..., dict[str, Any]]
WHOLE = {"upgrad": "UPGrad", "pcgrad": "PCGrad", "mgda": "MGDA", "imtl_g": "IMTLG"}
WHOLE |= {"aligned_mtl": "AlignedMTL", "cagrad": "CAGrad"}


def combined(rule: str, gradients: torch.Tensor) -> torch.Tensor:
    """What becomes of the rows, each a term's gradient over two weights."""
    weights = [torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(3))]
    surgeon = Surgeon(rule)
    for row in gradients:
        for weight, part in zip(weights, row.split([2, 3]), strict=True):
            weight.grad = part.clone()
        surgeon.take(weights)
    surgeon.put(weights)
    return torch.cat([weight.grad for weight in weights if weight.grad is not None])


SOLVERS = {"upgrad": ("qpsolvers", "quadprog"), "cagrad": ("cvxpy", "clarabel")}
"""That TorchJD wants beside it."""


@pytest.mark.parametrize("rule", WHOLE)
def test_it_is_the_rule_of_the_library_on_whole_gradients(rule: str) -> None:
    for solver in SOLVERS.get(rule, ()):
        pytest.importorskip(solver, reason="extra: gradients")
    gradients = torch.randn(3, 5, generator=torch.Generator().manual_seed(2))
    gradients[1] -= gradients[0]  # two that conflict
    scale = 1 if rule == "pcgrad" else 3
    torch.manual_seed(0)
    found = combined(rule, gradients)
    torch.manual_seed(0)  # PCGrad draws an order
    options = {"c": 0.4} if rule == "cagrad" else {}
    theirs = getattr(torchjd, WHOLE[rule])(**options)(gradients)
    assert torch.allclose(found, scale * theirs, atol=1e-4)


def test_ranks_that_drew_different_dropout_combine_alike() -> None:
    """Of three that conflict, PCGrad's sum depends on the order that it draws."""
    gradients = torch.tensor([[1.0, 0.1], [-1.0, 0.6], [0.2, -1.0]])
    products, surgeon, found = (gradients @ gradients.T).double(), Surgeon("pcgrad"), []
    for drawn in range(12):
        torch.manual_seed(5)
        torch.rand(drawn)
        found.append(surgeon.factors(products))
    assert all(one == found[0] for one in found)


def test_two_that_conflict_by_hand() -> None:
    """g1 = (1, 0), g2 = (-1, 1): each less its part along the other is (1/2, 1/2) and (0, 1)."""
    gradients = torch.tensor([[1.0, 0, 0, 0, 0], [-1.0, 1, 0, 0, 0]])
    for rule in ("pcgrad", "upgrad") if find_spec("quadprog") else ("pcgrad",):
        assert combined(rule, gradients)[:2].tolist() == pytest.approx([0.5, 1.5], abs=1e-3)


@pytest.mark.parametrize("rule", ["upgrad", "pcgrad"])
def test_what_does_not_conflict_is_added_up(rule: str) -> None:
    for solver in SOLVERS.get(rule, ()):
        pytest.importorskip(solver, reason="extra: gradients")
    gradients = torch.tensor([[1.0, 0, 0, 2, 0], [0.5, 1, 0, 0, 0]])
    assert torch.allclose(combined(rule, gradients), gradients.sum(0), atol=1e-3)


def test_one_term_and_what_is_not_finite_are_left_alone() -> None:
    assert Surgeon("mgda").factors(torch.ones(1, 1)) == [1.0]
    assert Surgeon("mgda").factors(torch.full((2, 2), torch.nan)) == [1.0, 1.0]


def go(recipe: dict[str, Any], out: Path, **options: Any) -> list[dict[str, Any]]:
    carry_out(
        parse_recipe(recipe), out, **{"say": lambda line: None, "self_check": False, **options}
    )
    return read_metrics(out)


@pytest.fixture
def mixed(recipe_of: Make) -> Make:
    def make(schedule: Any, **train: Any) -> dict[str, Any]:
        two = {"demonstration": "sft", "pair": "dpo"}
        recipe = recipe_of("demonstration", "pair", objective=two, schedule=schedule)
        recipe["train"] |= {"batch_size": 3, "optim": "sgd", "max_grad_norm": 0, **train}
        return recipe

    return make


def test_a_run_with_agreeing_gradients_is_mix(
    mixed: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With factors of 1, terms that go backward one after another give what they give together."""
    monkeypatch.setattr(Surgeon, "factors", lambda self, products: [1.0] * len(products))
    mine = go(mixed({"name": "surgery", "rule": "pcgrad"}), tmp_path / "mine")
    plain = go(mixed("mix"), tmp_path / "plain")
    for left, right in zip(mine, plain, strict=True):
        assert left["loss"] == pytest.approx(right["loss"], rel=1e-5)
        assert left["grad_norm"] == pytest.approx(right["grad_norm"], rel=1e-4)
        assert left["tokens"] == right["tokens"]


def test_a_run_is_resumed_with_the_same_bits(mixed: Make, tmp_path: Path) -> None:
    schedule = {"name": "surgery", "rule": "mgda"}
    recipe = mixed(schedule, max_steps=4, save_steps=2)
    go(recipe, tmp_path / "whole")
    go(mixed(schedule, max_steps=3, save_steps=2), tmp_path / "cut")
    go(recipe, tmp_path / "cut", resume=True)
    mine, theirs = (load_file(tmp_path / n / "model/model.safetensors") for n in ("whole", "cut"))
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    told = json.loads((tmp_path / "whole" / "checkpoints/last/progress.json").read_text())
    assert told["schedule"] == {}


def test_without_the_library_one_line_says_what_to_type(
    mixed: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchjd", None)
    with pytest.raises(RecipeError, match=r"pip install 'onestage\[gradients\]'"):
        go(mixed("surgery"), tmp_path / "out")
    assert not (tmp_path / "out" / "recipe.yaml").exists()


def test_a_rule_whose_solver_is_missing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchjd._mixins.find_spec", lambda name: None)
    with pytest.raises(RecipeError, match="rule cagrad: CAGradWeighting requires"):
        weighing("cagrad")
