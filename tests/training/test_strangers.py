"""Answers behind prompts that they do not belong to: their tokens, and z by plain transformers."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import write_rows
from torch import Tensor

from onestage.config import RecipeError
from onestage.data.encoded import Encoded
from onestage.data.strangers import with_strangers
from onestage.data.trees import TokenPath
from onestage.training.build import build
from onestage.training.forward import row_terms
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe

Make = Callable[..., dict[str, Any]]
KTO = {"name": "kto", "baseline": "mismatched"}


def silent(line: str) -> None:
    pass


def pair(*paths: tuple[list[int], tuple[int, int]]) -> Encoded:
    made = tuple(
        TokenPath(np.array(ids, np.int32), (span,), (n,)) for n, (ids, span) in enumerate(paths)
    )
    return Encoded("pair", made, (math.nan,) * len(made), 2.0, "s", "a")


def test_each_prompt_gets_the_others_answer_and_nothing_is_longer_than_both() -> None:
    """Prompts of 2 and 3 tokens; behind the first stands all of 20 21, behind the second what fits."""
    mine = pair(([1, 2, 10, 11, 12], (2, 5)), ([1, 2, 9, 13], (3, 4)))
    other = pair(([5, 20, 21], (1, 3)), ([5, 6, 30, 31, 32], (2, 5)))
    found = with_strangers(mine, other)
    assert [path.ids.tolist() for path in found.paths[2:]] == [[1, 2, 20, 21], [1, 2, 9, 30, 31]]
    assert [path.spans for path in found.paths[2:]] == [((2, 4),), ((3, 5),)]
    assert [path.responses for path in found.paths] == [(0,), (1,), (2,), (3,)]
    assert found.sampled is not None
    assert found.sampled.roles == (0, 0, 3, 3)
    assert len(found.scores) == 4
    assert not found.is_problem


def logp(model: Any, prompt: list[int], answer: list[int]) -> Tensor:
    ids = torch.tensor([prompt + answer])
    told = model(ids).logits[0].log_softmax(-1)
    return sum(told[len(prompt) - 1 + n, token] for n, token in enumerate(answer))  # type: ignore[return-value]


@torch.no_grad()
def test_z_is_what_plain_transformers_finds_for_the_batch(recipe_of: Make, tmp_path: Path) -> None:
    recipe = recipe_of("label", objective=KTO, schedule="mix")
    run = build(parse_recipe(recipe), tmp_path / "out", say=silent)
    run.fill_reference()
    before = copy.deepcopy(run.policy.model)
    for parameter in run.policy.parameters():
        parameter += 0.1 * torch.randn_like(parameter)
    records = run.feeds.draw(["kto"])
    assert run.terms.count(records) == {"kto": float(len(records))}
    batch = run.devices.pack(records, run.options.row_budget)
    total = count = 0.0
    for row in batch.rows:
        _, losses = row_terms(run, row, batch)
        sum_, found = losses["kto"].observed["stranger"]
        total, count = total + sum_, count + found
    store = list(run.data.train["labels"])
    apart = []
    for record in records:
        at = next(n for n, kept in enumerate(store) if kept.id == record.id)
        mine, other = store[at].paths[0], store[(at + 1) % len(store)].paths[0]
        prompt, answer = mine.ids[: mine.opening].tolist(), other.ids[other.opening :].tolist()
        now, then = (logp(model, prompt, answer) for model in (run.policy.model, before))
        apart.append(float(now - then))
    assert count == len(records)
    assert total / count == pytest.approx(sum(apart) / len(apart), rel=1e-3, abs=1e-4)
    state = run.terms.objectives["kto"].advance({"kl": 0.0}, {"stranger": total / count})  # type: ignore[attr-defined]
    assert state == {"kl": total / count}


def test_a_run_of_it_measures_only_answers(recipe_of: Make, tmp_path: Path) -> None:
    recipe = recipe_of("pair", "label", objective=KTO)
    carry_out(parse_recipe(recipe), tmp_path / "out", say=silent)
    assert (tmp_path / "out" / "model").is_dir()


def test_sampled_answers_are_refused(recipe_of: Make, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "problems.jsonl", [{"prompt": "2 + 3?", "answer": "5"}])
    reward = {"name": "function", "path": "support.judged:vowels"}
    recipe = recipe_of("pair", objective=KTO, schedule="mix", rollout={"max_completion_length": 8})
    recipe["data"] = [
        {"name": "p", "path": str(file), "kind": "check", "reward": reward, "feedback": "pair"}
    ]
    with pytest.raises(RecipeError, match="baseline: running"):
        build(parse_recipe(recipe), tmp_path / "out", say=silent)
