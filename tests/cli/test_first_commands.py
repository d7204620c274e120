"""What a newcomer types first: --version, list, schema, init; and that check refuses what train does."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from support.tiny import write_recipe, write_rows
from typer.testing import CliRunner

from onestage.cli import app
from onestage.cli._told import ROOMS, plugins_of
from onestage.cli.list import _table
from onestage.training.recipe import load_recipe

Make = Callable[..., dict[str, Any]]


def call(*words: str) -> Any:
    return CliRunner().invoke(app, [*words], env={"COLUMNS": "250"})


def flat(text: str) -> str:
    return " ".join(text.split())


def test_the_version_is_the_package_s() -> None:
    from importlib.metadata import version

    assert call("--version").output == f"onestage {version('onestage')}\n"


def test_every_command_is_a_file_of_its_name() -> None:
    # `import` is a word of Python: its file is `import_.py`.
    files = {
        file.stem.rstrip("_") for file in Path(__file__).parents[2].glob("onestage/cli/[a-z]*.py")
    }
    known = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert known | {group.name for group in app.registered_groups} == files


@pytest.mark.parametrize("bench", ["convex", "tree"])
def test_a_command_that_moved_says_where_it_is(bench: str) -> None:
    result = call("lab", bench, "--quick")
    assert result.exit_code == 2
    assert f"is now `make {bench}`" in flat(result.output)


@pytest.mark.parametrize("sort", ROOMS)
def test_list_tells_what_can_be_named(sort: str) -> None:
    result = call("list", sort)
    assert result.exit_code == 0, result.output
    expected = {
        "objectives": ("dpo", "arXiv 2305.18290", "pair; counted by pair; needs logp, reference"),
        "schedules": ("maxright",),
        "hints": ("cosine",),
        "rewards": ("countdown",),
        "engines": ("vllm",),
        "worlds": ("lock",),
        "executors": ("ray",),
        "callbacks": ("tracker",),
        "suites": ("ifeval",),
        "formats": ("ultrafeedback", "rated by aspect"),
    }
    for word in expected[sort]:
        assert word in flat(result.output)


def test_a_list_breaks_no_word_in_a_narrow_terminal() -> None:
    """It was a table of seven columns, of three letters each."""
    narrow = Console(width=60, file=(said := StringIO()))
    narrow.print(_table("objectives", plugins_of("objectives")))
    words = said.getvalue().split()
    assert {"reference", "demonstration,", "Distillation:", "likelihood"} <= set(words)


def test_what_stands_between_colons_is_told_as_it_stands() -> None:
    """`:x:` is a red cross to those who print pictures."""
    result = call("check", "no:x:where.jsonl")
    assert result.exit_code == 1
    assert "no:x:where.jsonl" in flat(result.output)


def test_a_sort_that_is_none_is_near_one() -> None:
    result = call("list", "objective")
    assert result.exit_code == 1
    assert "did you mean 'objectives'?" in flat(result.output)


def test_the_schema_accepts_our_recipes_and_refuses_a_mistyped_key(recipe_of: Make) -> None:
    import jsonschema

    schema = json.loads(call("schema").output)
    jsonschema.Draft202012Validator.check_schema(schema)
    for file in sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml")):
        content = json.loads(load_recipe(file).model_dump_json(exclude_unset=True))
        jsonschema.validate(content, schema)
    short = {"model": "some/model", "data": {"chat": "chat.jsonl"}, "objective": "sft"}
    jsonschema.validate(short, schema)
    with pytest.raises(jsonschema.ValidationError, match="learning_rte"):
        jsonschema.validate({**short, "train": {"learning_rte": 1}}, schema)
    assert "dpo" in schema["properties"]["objective"]["examples"]


KINDS = {
    "demonstration": "sft",
    "pair": "dpo",
    "score": "uft",
}


@pytest.mark.parametrize("kind", KINDS)
def test_init_writes_a_recipe_that_can_be_checked(
    kind: str,
    rows: dict[str, list[dict[str, Any]]],
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "mine.jsonl", rows[kind])
    made = call("init", "mine.jsonl", "--model", str(model_folder))
    assert made.exit_code == 0, made.output
    assert "next: onestage check recipe.yaml" in made.output
    content = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    assert content["objective"] == KINDS[kind]
    assert content["data"] == [{"name": "mine", "path": "mine.jsonl"}]
    assert f"# {len(rows[kind])} {kind}" in (tmp_path / "recipe.yaml").read_text()
    checked = call("check", "recipe.yaml", "--set", "train.max_length=256")
    assert "ready to train" in checked.output, checked.output
    again = call("init", "mine.jsonl")
    assert again.exit_code == 1
    assert "is there already" in again.output


def test_init_gives_problems_an_objective_of_their_own(
    rows: dict[str, list[dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "demos.jsonl", rows["demonstration"])
    write_rows(tmp_path / "sums.jsonl", [{"prompt": "1 + 1 =", "answer": "2"}])
    assert call("init", "demos.jsonl", "sums.jsonl").exit_code == 0
    recipe = load_recipe(tmp_path / "recipe.yaml")
    assert recipe.objective == {"demonstration": "sft", "check": "grpo"}
    assert [stream.reward for stream in recipe.data] == [None, "match"]


@pytest.mark.parametrize("content", ["", '{"odd": 1}\n'])
def test_init_says_why_a_file_cannot_be_used(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd.jsonl").write_text(content)
    result = call("init", "odd.jsonl")
    assert result.exit_code == 1
    assert "odd.jsonl" in result.output
    assert not (tmp_path / "recipe.yaml").exists()


REFUSED = {
    "an optimiser": ({"train": {"optim": "adamm"}}, "unknown 'adamm'"),
    "its package": ({"train": {"optim": "lomo"}}, "train.optim 'lomo'"),
    "a schedule's arguments": (
        {"train": {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"odd": 1}}},
        "train.lr_scheduler_type 'cosine'",
    ),
    "a schedule of rates": ({"train": {"lr_scheduler_type": "cosin"}}, "lr_scheduler_type"),
    "target modules": (
        {"model": {"lora": {"target_modules": ["no_such_layer"]}}},
        "no_such_layer",
    ),
    "a tracker": ({"train": {"report_to": "tensorbord"}}, "did you mean 'tensorboard'"),
    "a callback": ({"train": {"callbacks": ["no.module:Here"]}}, "No module named 'no'"),
    "a reference that nobody uses": ({"reference": "{model}"}, "uses a reference"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_check_and_train_refuse_the_same(
    case: str, recipe_of: Make, model_folder: Path, tmp_path: Path
) -> None:
    """`check` never says "ready to train" where `train` then refuses, and says it in the same words."""
    changes, told = REFUSED[case]
    recipe = recipe_of("demonstration", objective="sft", model={"name": str(model_folder)})
    for section, content in changes.items():
        if isinstance(content, dict):
            recipe[section] = {**recipe.get(section, {}), **content}
        else:
            recipe[section] = content.format(model=model_folder)
    file = str(write_recipe(tmp_path / "recipe.yaml", recipe))
    checked = call("check", file, "--out", str(tmp_path / "run"))
    trained = call("train", file, "--out", str(tmp_path / "run"))
    for result in (checked, trained):
        assert result.exit_code == 1
        assert told in flat(result.output), result.output
    assert "ready to train" not in checked.output
    assert not (tmp_path / "run" / "model").exists()


def test_check_tells_everything_at_once(recipe_of: Make, tmp_path: Path) -> None:
    recipe = recipe_of("demonstration", objective="sftt", schedule="mixx")
    recipe["train"] |= {"optim": "adamm", "report_to": "nowhere"}
    output = flat(call("check", str(write_recipe(tmp_path / "recipe.yaml", recipe))).output)
    for word in ("'sftt'", "'mixx'", "'adamm'", "'nowhere'"):
        assert word in output


def test_check_knows_the_folder_that_train_would_use(
    recipe_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = recipe_of("demonstration", objective="sft", train__max_steps=1)
    file = str(write_recipe(tmp_path / "mine.yaml", recipe))
    assert "ready to train" in call("check", file).output
    assert call("train", file).exit_code == 0
    refused = call("check", file)
    assert refused.exit_code == 1
    assert "runs/mine already holds a run" in flat(refused.output)
    assert "ready to train" in call("check", file, "--out", "runs/other").output
