"""docs/plugins.md: its files are written as they are printed, tried on their laws, and trained with."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.markdown import blocks
from support.tiny import ROOT, write_rows

import onestage as one
from onestage.rollout.rewards._pool import close_shared

PAGE = ROOT / "docs" / "plugins.md"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds the page's files, under the names that their first lines give them."""
    for _, block in blocks(PAGE, "python"):
        (tmp_path / block.splitlines()[0].removeprefix("# ")).write_text(block)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    close_shared()  # workers of earlier tests import from where they were started
    return tmp_path


def test_they_keep_their_laws(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, Any] = {}
    exec((place / "test_mine.py").read_text(), names)
    try:
        names["test_mine"]()
    finally:
        for name in ("hinge", "short", "turns"):
            sys.modules.pop(name, None)


def test_a_recipe_trains_with_them(recipe_of: Any, place: Path) -> None:
    recipe = recipe_of("pair", "demonstration", train__max_steps=4)
    rows = [{"prompt": f"say {n}", "answer": str(n)} for n in range(6)]
    problems = {"name": "asked", "path": str(write_rows(place / "asked.jsonl", rows))}
    recipe["data"].append({**problems, "kind": "check", "reward": "./short.py"})
    recipe["objective"] = {"pair": {"name": "./hinge.py:Hinge", "beta": 0.5}, "asked": "grpo"}
    recipe["objective"]["demonstration"] = "sft"
    recipe["schedule"] = "./turns.py:Turns"
    recipe["rollout"] = {"num_generations": 2, "max_completion_length": 6}
    recipe["train"]["callbacks"] = [{"name": "./told.py:Told", "every": 2}]
    run = one.train(recipe, out="run", say=lambda _: None)
    assert run.metrics[0]["loss"] == pytest.approx(1.0)  # hinge at a margin of 0
    assert [line.split()[0] for line in Path("losses.txt").read_text().splitlines()] == ["2", "4"]
    plugins = json.loads(Path("run/manifest.json").read_text())["plugins"]
    assert sorted(plugins) == ["Hinge", "Short", "Turns"]


def test_the_table_names_the_groups_and_contracts() -> None:
    """Every sort: the group that is read, and a contract that can be imported."""
    import importlib

    from onestage.cli._told import ROOMS

    table = [line.split("|") for line in PAGE.read_text().splitlines() if "`onestage." in line]
    told = {row[3].strip(" `"): row[2].split("`")[1] for row in table if len(row) == 6}
    plugins = {name: importlib.import_module(room).PLUGINS for name, room in ROOMS.items()}
    assert set(told) == {one.group for one in plugins.values()}
    for sort in plugins.values():
        where, _, name = told[sort.group].rpartition(".")
        assert getattr(importlib.import_module(where), name) is sort.kind


def test_its_yaml_is_yaml() -> None:
    for _, block in blocks(PAGE, "yaml"):
        yaml.safe_load(block)
