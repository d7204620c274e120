"""Law 12: sharded = replicated = one process, on ranks of gloo.

Runs of 20 steps on 2 and 4 ranks, weights whole or in parts, against the same run on one process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.ranks import on_ranks
from support.tiny import write_rows

from onestage.runfolder import read_metrics
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe

Make = Callable[..., dict[str, Any]]
LAYOUTS = {
    "2 whole": (2, "none", 1),
    "2 in parts": (2, "full", 1),
    "4 in parts": (4, "full", 1),
    "4 as two copies": (4, "hybrid", 2),
}
"""Ranks, sharding, nodes."""
WORDS = ("sea", "wind", "moon", "Paris", "red", "hello", "morning", "poem")


def go(recipe: Mapping[str, Any], out: Path, resume: bool = False) -> list[dict[str, Any]]:
    carry_out(parse_recipe(recipe), out, resume=resume, say=lambda line: None)
    return read_metrics(out)


def spread(recipe: dict[str, Any], layout: str, out: Path, resume: bool = False) -> Any:
    """The metrics of a run on some ranks, of which every one must end."""
    ranks, sharding, nodes = LAYOUTS[layout]
    told = {**recipe, "distributed": {"sharding": sharding}}
    return on_ranks(ranks, go, told, out, resume, nodes=nodes, seconds=100)[0]


def weights(out: Path) -> dict[str, torch.Tensor]:
    (file,) = (out / "model").glob("*.safetensors")
    return load_file(file)


def agree(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    for mine, theirs in zip(one, other, strict=True):
        assert mine.keys() == theirs.keys()
        for name in filter(compared, mine):
            close = 1e-6 if name.endswith("loss") else 2e-5
            assert theirs[name] == pytest.approx(mine[name], rel=close, abs=close), name


@pytest.fixture
def tasks(recipe_of: Make, tmp_path: Path) -> Callable[[str], dict[str, Any]]:
    """A recipe of some name: what is trained, by which schedule."""

    def make(name: str) -> dict[str, Any]:
        what, how = name.split()
        train = {"train__max_steps": 20, "train__learning_rate": 1e-3, "train__batch_size": 8}
        budget = {"train__tokens_per_row": 128}
        if what == "grpo":
            file = write_rows(
                tmp_path / "asked.jsonl", [{"prompt": f"{w}?", "answer": w} for w in WORDS]
            )
            recipe = recipe_of("demonstration", objective="grpo", **train, **budget)
            judge = {"name": "function", "path": f"{_judge(tmp_path)}:vowels"}
            recipe["data"] = [{"name": "asked", "path": str(file), "reward": judge}]
            recipe["rollout"] = {"max_completion_length": 8, "num_generations": 4}
            recipe["train"] |= {"batch_size": 2, "max_steps": 6}
        elif what == "maxright":
            recipe = recipe_of("demonstration", "pair", **train, **budget)
            recipe["objective"] = {"demonstration": "sft", "pair": "dpo"}
            recipe["schedule"] = "maxright"
            recipe["optimum"] = {"given": {"sft": 0.5, "dpo": 0.1}}
        else:
            recipe = recipe_of(**train, **budget)
        if how == "lora":
            recipe["model"]["lora"] = {"r": 4}
        return recipe

    return make


def _judge(folder: Path) -> Path:
    """A reward that an untrained model earns now and then."""
    file = folder / "judge.py"
    file.write_text(
        "def vowels(completion, **row):\n    return sum(c in 'aeiou' for c in completion) / 8\n"
    )
    return file


CASES = [
    ("uft full", "2 whole"),
    ("uft full", "2 in parts"),
    ("uft full", "4 as two copies"),
    ("uft lora", "2 whole"),
    ("uft lora", "4 in parts"),
    ("maxright full", "2 in parts"),
    ("maxright lora", "2 whole"),
    ("grpo full", "2 whole"),
    ("grpo lora", "2 in parts"),
]


def compared(name: str) -> bool:
    """Not the clock's, and not what trees save: many ranks join fewer records, to have equal work."""
    return "second" not in name and name != "forest_saving"


@pytest.mark.parametrize(("task", "layout"), CASES)
def test_ranks_do_what_one_process_does(
    tasks: Callable[[str], dict[str, Any]], tmp_path: Path, task: str, layout: str
) -> None:
    recipe = tasks(task)
    one = go(recipe, tmp_path / "one")
    many = spread({**recipe, "cache_dir": str(tmp_path / "own")}, layout, tmp_path / "many")
    agree(one, many)
    mine, theirs = weights(tmp_path / "one"), weights(tmp_path / "many")
    assert mine.keys() == theirs.keys()  # and not a rank's part of them
    for name, tensor in mine.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=0, atol=2e-5, msg=name)
