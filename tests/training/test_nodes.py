"""Nodes without a common disk: each reads, encodes and keeps by itself, and they are one run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.ranks import on_ranks

from onestage.runfolder import read_metrics
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe

Make = Callable[..., dict[str, Any]]


def go(recipe: Mapping[str, Any], out: Path) -> list[str]:
    said: list[str] = []
    carry_out(parse_recipe(recipe), out, say=said.append)
    return said


def losses(out: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(out) if "loss" in line]


@pytest.fixture
def recipe(recipe_of: Make) -> dict[str, Any]:
    made = recipe_of("pair", objective="dpo", train__max_steps=6, train__tokens_per_row=128)
    made["train"]["logging_steps"] = 1
    return made


def test_nodes_with_their_own_disks_do_what_one_process_does(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    (stream,) = recipe["data"]
    source = Path(stream["path"])
    stream["path"] = source.name  # the same name on every node, and a copy of its own
    nodes = [tmp_path / name for name in ("alone", "node0", "node1")]
    for node in nodes:
        node.mkdir()
        shutil.copy(source, node)

    def work(node: Path, out: Path) -> list[str]:
        os.chdir(node)
        return go({**recipe, "cache_dir": str(node / "cache")}, out)

    (alone,) = on_ranks(1, work, nodes[0], tmp_path / "one", seconds=60)
    # What one node has kept from an earlier run, the other hears from it.
    shutil.copytree(nodes[0] / "cache" / "reference", nodes[1] / "cache" / "reference")

    def spread() -> list[str]:
        return work(nodes[1 + int(os.environ["RANK"])], tmp_path / "two")

    told, _ = on_ranks(2, spread, nodes=2, seconds=60)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-6)
    (computed,) = [line for line in alone if line.startswith("reference:")]
    (found,) = [line for line in told if line.startswith("reference:")]
    assert " 0 paths found" in computed
    assert ", 0 computed" in found
    for what in ("tokens", "reference"):
        kept = [{file.name for file in (node / "cache" / what).iterdir()} for node in nodes]
        assert kept[0] == kept[1] == kept[2]
