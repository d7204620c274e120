"""Recipes whose rows are given in Python, through a whole run and through stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from support.tiny import TINY, make_tokenizer, write_rows

import onestage
from onestage.config import RecipeError
from onestage.data.given import GivenRows
from onestage.training.pipeline import carry_out
from onestage.training.plan import stages_of
from onestage.training.recipe import parse_recipe

ROWS = [{"prompt": f"say {word}", "completion": f" {word}"} for word in ("sea", "moon", "wind")]


def recipe_of(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    make_tokenizer().save_pretrained(tmp_path / "tokenizer")
    return {
        "model": {
            "config": {"model_type": "llama", **TINY},
            "tokenizer": str(tmp_path / "tokenizer"),
        },
        "data": [{"name": "mine", "path": ROWS, "eval_path": ROWS[:1]}],
        "objective": "sft",
        "train": {"max_steps": 2, "batch_size": 2, "max_length": 64},
        "cache_dir": str(tmp_path / "cache"),
        **changes,
    }


def test_a_run_on_given_rows_says_what_they_were(tmp_path: Path) -> None:
    said: list[str] = []
    for out in ("one", "two"):
        carry_out(
            parse_recipe(recipe_of(tmp_path)), tmp_path / out, say=said.append, self_check=False
        )
    assert any("data mine: 3 demonstration" in line for line in said)
    assert any("data mine (held out): 1 demonstration" in line for line in said)
    assert sum("(encoded before)" in line for line in said) == 2
    kept = yaml.safe_load((tmp_path / "one" / "recipe.yaml").read_text())
    assert kept["data"][0]["path"].startswith("<3 rows given in Python, digest ")
    with pytest.raises(ValueError, match=r"<3 rows .* are on no disk: give the same rows again"):
        carry_out(parse_recipe(kept), tmp_path / "three", say=said.append, self_check=False)


def test_stages_hand_the_rows_on(tmp_path: Path) -> None:
    stages = [{"name": "a"}, {"name": "b"}]
    made = stages_of(parse_recipe(recipe_of(tmp_path, stages=stages)), tmp_path / "out")
    for stage in made:
        path = stage.recipe.data[0].path
        assert isinstance(path, GivenRows)
        assert list(path.rows) == ROWS


def test_splits_are_no_streams(model_folder: Path) -> None:
    """A table of streams would train on the rows of `test`, too."""
    rows = datasets.Dataset.from_list([{"prompt": "2 + 2 =", "completion": " 4"}] * 3)
    both = datasets.DatasetDict({"train": rows, "test": rows})
    for data in (both, {"mine": both}, [{"name": "mine", "path": both}]):
        with pytest.raises(
            RecipeError, match=r"choose one of its splits, train, test, as in data\["
        ):
            onestage.check(model=str(model_folder), data=data)
    with pytest.raises(RecipeError, match=r"give list\(...\) of what can be gone through once"):
        onestage.check(model=str(model_folder), data={"mine": iter(rows)})


def test_one_stream_and_a_list_of_paths(model_folder: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"{n} + 2 =", "completion": " 4"} for n in range(3)]
    paths = [write_rows(tmp_path / f"{name}.jsonl", rows) for name in ("path_a", "b")]
    for data, names in (
        (onestage.Stream(rows, name="mine", weight=2), ["mine"]),
        (paths, ["path_a", "b"]),
        ([str(path) for path in paths], ["path_a", "b"]),
    ):
        (checked,) = onestage.check(model=str(model_folder), data=data, cache_dir=str(tmp_path))
        assert list(checked.findings.streams) == names
    assert "path_a, b: 3 records stand in more than one of them" in checked.findings.warnings
    with pytest.raises(RecipeError, match="found a list of 2 paths: give each a stream"):
        onestage.check(model=str(model_folder), data=[{"name": "x", "path": paths}])
