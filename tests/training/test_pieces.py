"""Records that are longer than a row may be go backward in pieces, and nothing but memory changes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from support.ranks import on_ranks
from support.tiny import token_path, write_rows

from onestage.data.packing import pack, pack_records
from onestage.runfolder import read_metrics
from onestage.training.build import build
from onestage.training.pieces import backward, passes_of
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe

Make = Callable[..., dict[str, Any]]


@given(
    lengths=some.lists(some.integers(1, 30), min_size=1, max_size=8),
    prompt=some.integers(1, 20),
    longest=some.integers(20, 90),
    seed=some.integers(0, 99),
)
def test_pieces_hold_every_path_once(
    lengths: list[int], prompt: int, longest: int, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    begin = list(range(5, 5 + prompt))
    group = [
        token_path([*begin, *draw.integers(30, 34, size)], (prompt, prompt + size), responses=(n,))
        for n, size in enumerate(lengths)
    ]
    (row,) = pack([group], longest, longest=longest)
    assert len(row.pieces) != 1
    if not row.pieces:
        assert len(row) <= longest or len(group) == 1
        return
    taken = [path for piece in row.pieces for path in piece.row.paths]
    assert sorted(map(id, taken)) == sorted(map(id, row.paths))
    whole_K = row.tree.token_T[row.tree.node_K]
    entries = np.concatenate([piece.entry_K for piece in row.pieces])
    assert sorted(entries) == list(range(len(whole_K)))
    for piece in row.pieces:
        assert len(piece.row) <= longest or len(piece.row.paths) == 1
        tree = piece.row.tree
        assert (tree.token_T[tree.node_K] == whole_K[piece.entry_K]).all()
        assert (tree.response_K == row.tree.response_K[piece.entry_K]).all()


def scored_groups(folder: Path) -> Path:
    """Prompts with six answers of some length, of other scores."""
    words = ("sea", "wind", "moon", "Paris")
    answers = [" and the ".join([w] * (8 + n)) for n, w in enumerate(words * 2)]
    rows = [
        {
            "prompt": f"Tell of the {word}:",
            "completions": answers[:6],
            "scores": [0.1, 0.9, 0.4, 0.3, 0.7, 0.6],
        }
        for word in words
    ]
    return write_rows(folder / "groups.jsonl", rows)


@pytest.fixture
def recipe(recipe_of: Make, tmp_path: Path) -> dict[str, Any]:
    recipe = recipe_of("demonstration", train__max_steps=3, train__batch_size=4)
    recipe["data"] = [{"name": "groups", "path": str(scored_groups(tmp_path)), "kind": "group"}]
    recipe["train"] |= {"learning_rate": 1e-3, "max_length": 128, "tokens_per_row": 2048}
    return recipe


def go(recipe: dict[str, Any], out: Path) -> list[dict[str, Any]]:
    carry_out(parse_recipe(recipe), out, say=lambda line: None, self_check=False)
    return read_metrics(out)


def short(recipe: dict[str, Any]) -> dict[str, Any]:
    return {**recipe, "train": {**recipe["train"], "tokens_per_row": 128}}


def test_a_run_in_pieces_is_the_run(recipe: dict[str, Any], tmp_path: Path) -> None:
    whole, cut = go(recipe, tmp_path / "whole"), go(short(recipe), tmp_path / "cut")
    for one, other in zip(whole, cut, strict=True):
        assert other["repeated_tokens"] > 0
        assert "repeated_tokens" not in one
        for name in ("loss", "grad_norm", "groups/logp", "tokens"):
            assert other[name] == pytest.approx(one[name], rel=2e-5), name


def test_many_ranks_wait_for_each_others_pieces(recipe: dict[str, Any], tmp_path: Path) -> None:
    """Weights in parts and whole; a rank whose row is short runs pieces of nothing."""
    demos = write_rows(tmp_path / "demos.jsonl", [{"prompt": "Q?", "completion": " yes"}] * 5)
    recipe["data"].append({"name": "demos", "path": str(demos)})
    recipe["train"]["batch_size"] = 5
    one = go(short(recipe), tmp_path / "one")
    for sharding in ("none", "full"):
        told = {**short(recipe), "distributed": {"sharding": sharding}}
        many = on_ranks(2, go, told, tmp_path / sharding, seconds=100)[0]
        for mine, theirs in pairwise([one, many]):
            for first, second in zip(mine, theirs, strict=True):
                assert second["loss"] == pytest.approx(first["loss"], rel=1e-6)
                assert second["grad_norm"] == pytest.approx(first["grad_norm"], rel=2e-5)


def test_dropout_is_the_same_both_times(recipe: dict[str, Any], tmp_path: Path) -> None:
    """Against one graph through all pieces, which draws the same numbers in the same order."""
    recipe["model"]["lora"] = {"r": 4, "dropout": 0.3}
    run = build(parse_recipe(recipe), tmp_path / "out", say=lambda line: None)
    run.fill_reference()
    run.policy.train()
    for parameter in run.policy.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    record = run.feeds.draw([*run.terms.objectives])[0]
    batch = pack_records([record], 128, longest=128)
    counts, weights = run.terms.count([record]), dict.fromkeys(run.terms.objectives, 1.0)
    (row,) = batch.rows
    torch.manual_seed(3)
    passes = passes_of(batch.rows, 0, 1)
    assert passes > 1
    losses = backward(run, row, batch, weights, counts, passes=passes, last=True)
    mine = [p.grad.clone() for p in run.policy.parameters() if p.grad is not None]
    run.policy.zero_grad(set_to_none=True)
    torch.manual_seed(3)
    logp_K = torch.zeros(len(row.tree.node_K))
    for piece in row.pieces:
        logp_K = logp_K.index_copy(0, torch.from_numpy(piece.entry_K), run.policy(piece.row))
    reference = np.concatenate([run.reference[path] for path in record.paths])
    known = {"logp": logp_K, "reference": torch.from_numpy(reference)}
    theirs = run.terms.losses(row, batch, known)
    (name,) = theirs
    (theirs[name].loss_U.sum() / counts[name]).backward()
    torch.testing.assert_close(losses[name].loss_U, theirs[name].loss_U.detach())
    whole = [p.grad for p in run.policy.parameters() if p.grad is not None]
    for one, other in zip(mine, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
