"""`onestage encode`: what it makes is what `train` looks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from support.tiny import write_recipe
from typer.testing import CliRunner

from onestage.cli import app
from onestage.training.build import Draft
from onestage.training.recipe import load_recipe

Make = Callable[..., dict[str, Any]]


def call(*words: object) -> Any:
    return CliRunner().invoke(app, [*map(str, words)], env={"COLUMNS": "250"})


def train_finds(file: Path) -> list[str]:
    said: list[str] = []
    draft = Draft(load_recipe(file))
    draft.read(said.append)
    draft.refuse()
    return [line for line in said if line.startswith("data ")]


def test_a_recipe_finds_what_was_encoded(recipe_of: Make, tmp_path: Path) -> None:
    file = write_recipe(tmp_path / "r.yaml", recipe_of("pair", "demonstration", objective="uft"))
    result = call("encode", file, "--num-proc", 2)
    assert result.exit_code == 0, result.output
    assert "encoded before" not in result.output
    found = train_finds(file)
    assert len(found) == 2
    assert all(line.endswith("(encoded before)") for line in found)
    assert call("encode", file).output.count("encoded before") == 2


def test_data_files_are_encoded_for_recipes_of_the_same_stream(
    recipe_of: Make, tmp_path: Path
) -> None:
    recipe = recipe_of("pair", objective="dpo")
    stream, model = recipe["data"][0], recipe["model"]
    rows = Path(stream["path"])
    stream["name"] = rows.name.split(".")[0]
    file = write_recipe(tmp_path / "r.yaml", recipe)
    refused = call("encode", rows)
    assert refused.exit_code == 1
    assert "--tokenizer: data files are encoded for a model" in refused.output + refused.stderr
    tokenizer = model.get("tokenizer") or model["name"]
    length = recipe["train"].get("max_length", 1024)
    where = ("--tokenizer", tokenizer, "--max-length", length, "--cache", recipe["cache_dir"])
    result = call("encode", rows, *where)
    assert result.exit_code == 0, result.output
    (line,) = train_finds(file)
    assert line.endswith("(encoded before)")


def test_rows_that_a_run_would_refuse_are_told(recipe_of: Make, tmp_path: Path) -> None:
    recipe = recipe_of("pair", objective="dpo")
    rows = Path(recipe["data"][0]["path"])
    with rows.open("a") as opened:
        opened.write('{"prompt": "alone"}\n')
    file = write_recipe(tmp_path / "r.yaml", recipe)
    result = call("encode", file)
    assert result.exit_code == 1
    assert "1 refused" in result.output
    assert "1 rows cannot be used" in result.output + result.stderr
    written = yaml.safe_load(file.read_text())
    written["train"]["bad_rows"] = "skip"
    assert call("encode", write_recipe(tmp_path / "s.yaml", written)).exit_code == 0
