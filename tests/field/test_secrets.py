"""Keys reach neither a run folder nor what is printed: refused by their place, never repeated."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.tiny import write_recipe
from typer.testing import CliRunner

from onestage.cli._terminal import app
from onestage.config import RecipeError
from onestage.rollout.rewards.judge import Judge
from onestage.runfolder import environment
from onestage.runfolder.secrets import hidden, is_variable, secrets
from onestage.studies.file import StudyError, parse_study
from onestage.training.recipe import parse_recipe

# Made up, in the manner of several services.
KEYS = [
    "sk-proj-abcdefghijklmnop1234567890",
    "sk_live_abcdefghijklmnop123456",
    "hf_abcdefghijklmnopqrstuvwxyz",
    "gsk_abcdefghijklmnop1234567890",
    "AIzaSyA1234567890abcdefghijklmnopqrstu",
    "ghp_abcdefghijklmnopqrst1234567890",
    "AKIAIOSFODNN7EXAMPLE",
    "a3f9c2d4e5b6a7f8c9d0e1f2a3b4c5d6",
    "Bearer abc",
    "my key",
    "key=abc",
    "",
]
VARIABLES = ["OPENAI_API_KEY", "JUDGE_KEY", "judge_key_2", "_K", "my_openai_key_2024"]
ADDRESSES = [
    "https://me:secret@example.com/v1",
    "https://:secret@example.com/v1",
    "https://abcdefghijklmnop1234@example.com/v1",
    "https://example.com/v1?api_key=abcdef",
    "https://example.com/v1?model=a&token=abcdef",
    "https://example.com/v1?key=abcdef",
]
HARMLESS = [
    "https://example.com/v1?model=a",
    "git+ssh://git@example.com/a.git",
    "a key=value pair; sort by key = lambda row: row",
    "user@example.com",
    "risk-averse-and-conservative-policies",
    "the API key stands in JUDGE_KEY",
    "runs/sk-small/model",
]


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_no_name_of_a_variable(key: str) -> None:
    assert not is_variable(key)
    with pytest.raises(ValueError, match="name of an environment variable") as found:
        Judge(model="m", base_url="http://localhost:1/v1", api_key_env=key)
    assert not key or key not in str(found.value)


@pytest.mark.parametrize("name", VARIABLES)
def test_names_of_variables_are_taken(name: str) -> None:
    assert Judge(model="m", base_url="http://localhost:1", api_key_env=name).api_key_env == name


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses_that_hold_a_key(address: str) -> None:
    assert "secret" not in hidden(address)
    assert "abcdef" not in hidden(address)
    with pytest.raises(ValueError, match="base_url") as found:
        Judge(model="m", base_url=address)
    assert address not in str(found.value)


@pytest.mark.parametrize("text", HARMLESS)
def test_what_only_looks_alike_is_left_alone(text: str) -> None:
    assert hidden(text) == text
    assert not list(secrets({"description": text}))


PLACES: dict[str, Callable[[dict[str, Any], str], object]] = {
    "data.0.reward.api_key_env": lambda r, key: r["data"][0].update(
        reward={"name": "judge", "model": "m", "base_url": "http://h/v1", "api_key_env": key}
    ),
    "data.0.reward.base_url": lambda r, key: r["data"][0].update(
        reward={"name": "judge", "model": "m", "base_url": f"http://h/v1?api_key={key}"}
    ),
    "data.0.reward.api_key": lambda r, key: r["data"][0].update(
        reward={"name": "judge", "model": "m", "base_url": "http://h/v1", "api_key": key}
    ),
    "description": lambda r, key: r.update(description=f"run with {key}"),
    "data.0.path": lambda r, key: r["data"][0].update(path=f"https://u:{key}@h/a.jsonl"),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_recipe_with_a_key_is_refused_and_written_nowhere(
    place: str, recipe_of: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    key, recipe = KEYS[0], recipe_of("demonstration", objective="sft")
    PLACES[place](recipe, key)
    with pytest.raises(RecipeError, match=place) as found:
        parse_recipe(recipe)
    assert key not in str(found.value)
    file, out = write_recipe(tmp_path / "r.yaml", recipe), tmp_path / "out"
    done = CliRunner().invoke(app, ["train", str(file), "--out", str(out)])
    assert done.exit_code == 1
    assert place in done.output
    assert key not in done.output
    assert not out.exists()
    methods = {"A": {"objective": "sft"}}
    common = {key: value for key, value in recipe.items() if key != "objective"}
    study = {"name": "s", "world": {"name": "lab"}, "seeds": [0], "recipe": common}
    with pytest.raises(StudyError, match=place) as refused:
        parse_study({**study, "methods": methods})
    assert key not in str(refused.value)


def test_the_command_is_kept_without_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["onestage", "train", "r.yaml", "--set", "x.api_key=abc", "--set", "train.seed=3"]
    monkeypatch.setattr(sys, "argv", [*words, KEYS[0], ADDRESSES[0]])
    kept = environment()["command"]
    assert kept[:4] == words[:4]
    assert kept[4:] == [
        *("x.api_key=***", "--set", "train.seed=3"),
        *("***", "https://***@example.com/v1"),
    ]


def test_an_override_with_a_key_is_not_repeated(
    recipe_of: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    file = write_recipe(tmp_path / "r.yaml", recipe_of("demonstration", objective="sft"))
    for given in (f"train.seed={KEYS[0]}", f"x.api_key={KEYS[-6]}", "y=[" + KEYS[1]):
        done = CliRunner().invoke(app, ["train", str(file), "--set", given])
        assert done.exit_code == 1
        assert given.rpartition("=")[2] not in done.output


def test_a_run_keeps_the_name_of_the_variable(recipe_of: Callable[..., dict[str, Any]]) -> None:
    recipe = recipe_of("demonstration", objective="sft")
    PLACES["data.0.reward.api_key_env"](recipe, "OPENAI_API_KEY")
    kept = yaml.safe_dump(parse_recipe(recipe).model_dump(mode="json"))
    assert "api_key_env: OPENAI_API_KEY" in kept
    assert json.dumps(kept)
