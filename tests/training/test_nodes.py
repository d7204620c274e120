"""Nodes without a common disk: each reads, encodes and keeps by itself, and they are one run."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import datasets
import pytest
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from support.ranks import on_ranks

from onestage.data.stream import Stream
from onestage.runfolder import read_metrics
from onestage.training.agreeing import first_of_node
from onestage.training.pipeline import carry_out
from onestage.training.read import Data
from onestage.training.recipe import parse_recipe
from onestage.training.stopped import RankError, among_ranks

Make = Callable[..., dict[str, Any]]


def go(recipe: Mapping[str, Any], out: Path) -> list[str]:
    said: list[str] = []
    carry_out(parse_recipe(recipe), out, say=said.append, self_check=False)
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


def passing(rows: list[dict[str, Any]], seen: Path) -> Stream:
    """Rows that can only be read through; each pass leaves a file."""

    def walk() -> Iterator[dict[str, Any]]:
        (seen / f"{os.getpid()}-{time.monotonic_ns()}").touch()
        yield from rows

    return Stream(datasets.IterableDataset.from_generator(walk), name="pairs")


def test_rows_that_pass_by_are_read_once_a_node_and_known_again(
    recipe: dict[str, Any], rows: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    """Two nodes of two ranks: as with a file, in two passes; a run goes on with the same rows only."""
    recipe["train"] |= {"max_steps": 2, "save_steps": 2}
    go(recipe, tmp_path / "file")
    (seen := tmp_path / "seen").mkdir()

    def work(resume: bool, given: list[dict[str, Any]], steps: int) -> list[str]:
        told = {**recipe, "data": [passing(given, seen)]}
        told["train"] = {**recipe["train"], "max_steps": steps}
        told["cache_dir"] = str(tmp_path / f"cache{int(os.environ['RANK']) // 2}")
        carry_out(
            parse_recipe(told),
            tmp_path / "run",
            resume=resume,
            say=lambda line: None,
            self_check=False,
        )
        return []

    on_ranks(4, work, False, rows["pair"], 2, nodes=2, seconds=60)
    assert len(list(seen.iterdir())) == 2
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "file"), rel=1e-6)
    with pytest.raises(AssertionError, match=r"CheckpointError.*made with other data: \['pairs'\]"):
        on_ranks(1, work, True, rows["pair"][1:], 3, seconds=60)
    on_ranks(1, work, True, rows["pair"], 3, seconds=60)
    assert len(losses(tmp_path / "run")) == 3


def test_ranks_wait_for_who_encodes_for_longer_than_messages_may_take() -> None:
    def work() -> float:
        patience = InitProcessGroupKwargs(timeout=timedelta(seconds=1))
        accelerator, began = Accelerator(cpu=True, kwargs_handlers=[patience]), time.monotonic()

        def read(there: Mapping[str, str]) -> Data:
            if accelerator.is_main_process:
                time.sleep(2)
            return Data({}, {}, folders={"mine": str(accelerator.process_index), **there})

        found = first_of_node(accelerator, read)
        assert found.folders == {"mine": "0"}
        return time.monotonic() - began

    assert min(on_ranks(2, work, seconds=30)) >= 2


@pytest.mark.parametrize("early", [False, True], ids=["reading", "before"])
def test_nobody_waits_for_a_process_that_has_ended(early: bool, tmp_path: Path) -> None:
    def work() -> None:
        accelerator = Accelerator(cpu=True)

        def read(there: Mapping[str, str]) -> Data:
            raise ValueError("the main one stops")

        if early and accelerator.is_main_process:
            read({})
        try:
            with among_ranks(accelerator):
                first_of_node(accelerator, read)
        except RankError as error:
            (tmp_path / "told").write_text(str(error))

    with pytest.raises(AssertionError, match="the main one stops"):
        on_ranks(2, work, seconds=20)
    assert "rank 1 stops here" in (tmp_path / "told").read_text()
