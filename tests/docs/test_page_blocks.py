"""Blocks of YAML and Python in README and docs are what they are printed for: recipes, studies, calls.

Those of python.md, plugins.md and README's own example are run whole by tests of their own.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.markdown import PAGES, blocks
from support.tiny import ROOT

from onestage import objectives, schedules
from onestage.config import Plugins
from onestage.rollout import engines, hints, rewards
from onestage.studies.file import parse_study
from onestage.training.recipe import Recipe, parse_recipe

SMALLEST = {
    **{"model": "m", "data": {"x": {"path": "x.jsonl", "eval_path": "y.jsonl"}}},
    **{"objective": "sft", "train": {"max_steps": 1}},
}
OTHERS = {"apiVersion": "Kubernetes", "num_nodes": "SkyPilot"}
"""Keys by which other programs' files are known."""
RUN_WHOLE = ("python.md", "plugins.md", "README.md")
BLOCKS = [
    pytest.param(page, line, block, id=f"{page.stem}:{line}")
    for page in PAGES
    for line, block in blocks(page, "yaml")
]


@pytest.mark.parametrize(("page", "line", "block"), BLOCKS)
def test_yaml_is_a_recipe_a_study_or_a_reward(page: Path, line: int, block: str) -> None:
    content = yaml.safe_load(block)
    if OTHERS.keys() & content.keys():
        return
    if "methods" in content:
        parse_study({"name": "x", **content})
    elif set(content) <= set(Recipe.model_fields):
        recipe = parse_recipe({**SMALLEST, **content})
        for plugins, given in named(recipe):
            name = given if isinstance(given, str) else given["name"]
            if plugins is engines.PLUGINS:  # which are made with a model
                plugins.find(name)
            elif not name.startswith("./"):  # a file of the page's reader
                plugins.make(given)
    elif page.stem == "studies" and set(content) == {"resources"}:
        study = next(one for _, one in blocks(page, "yaml") if "methods" in one)
        parse_study({**yaml.safe_load(study), **content})
    else:
        rewards.PLUGINS.make(content)


def named(recipe: Any) -> Iterator[tuple[Plugins[Any], Any]]:
    """What a recipe names of each room, with its options."""
    given = recipe.objective
    several = isinstance(given, Mapping) and "name" not in given
    for one in given.values() if several else [given]:
        yield objectives.PLUGINS, one
    schedule = {"name": recipe.schedule} if isinstance(recipe.schedule, str) else recipe.schedule
    # What every schedule may be told, the run hands to it.
    yield schedules.PLUGINS, {k: v for k, v in schedule.items() if k not in ("weights", "lambda")}
    if recipe.rollout.engine is not None:
        yield engines.PLUGINS, recipe.rollout.engine
    for stream in recipe.data:
        yield hints.PLUGINS, stream.hint
        if stream.reward is not None:
            yield rewards.PLUGINS, stream.reward


@pytest.mark.parametrize(
    "page", [p for p in PAGES if p.name not in RUN_WHOLE], ids=lambda p: p.stem
)
def test_calls_of_python_fit_what_they_call(page: Path) -> None:
    for line, block in blocks(page, "python"):
        tree, ours = ast.parse(block), {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("onestage"):
                module = importlib.import_module(str(node.module))
                ours |= {one.name: getattr(module, one.name) for one in node.names}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) in ours:
                words = {str(one.arg): None for one in node.keywords}
                inspect.signature(ours[node.func.id]).bind(*node.args, **words)
        assert ours or "def " in block, f"{page.name}:{line}"


def test_the_page_s_own_reward_is_a_reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ((_, block),) = blocks(ROOT / "docs" / "rewards.md", "python")
    Path("rewards.py").write_text(block)
    reward = rewards.PLUGINS.make({"name": "function", "path": "rewards.py:brief"})
    right = rewards.Answer("2 + 2?", "It is 4.", {"target": 4})
    assert reward([right, rewards.Answer("2 + 2?", "5", {"target": 4})]) == [1.0, 0.0]
