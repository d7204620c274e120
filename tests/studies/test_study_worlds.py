"""The worlds of studies: what each makes of a seed, and that it judges what it says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from onestage.studies.lab import lock_base, presets
from onestage.studies.run_cell import world_of
from onestage.studies.worlds import World

SHORT = {"max_steps": 3}


def judged(world: World, tmp_path: Path, seed: int) -> None:
    """Ground, splits and evaluation fit together; the base found again is the one that was made."""
    ground = world.prepare(seed, tmp_path, lambda line: None)
    assert world.prepare(seed, tmp_path, lambda line: None) == ground
    for split in ("train", "validation", "test"):
        assert (ground.data / f"check.{split}.jsonl").is_file()
    validation = world.evaluate(ground, ground.base, seed, "validation")
    test = world.evaluate(ground, ground.base, seed, "test")
    assert set(test.metrics) == set(world.metrics)
    assert set(world.headline) <= set(world.metrics)
    asked = [
        {answer["prompt"] for answer in found.answers if answer["metric"] != "knowledge"}
        for found in (
            validation,
            test,
        )  # the old words are asked for in both: nothing trains on them
    ]
    assert asked[0]
    assert not asked[0] & asked[1]
    assert {"prompt", "response", "metric", "right"} <= set(test.answers[0])
    again = world.evaluate(ground, ground.base, seed, "test")
    assert again.metrics == test.metrics


def test_the_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = presets.PRESETS["small"]
    monkeypatch.setitem(presets.PRESETS, "small", replace(small, train={**small.train, **SHORT}))
    judged(world_of({"name": "lab"}), tmp_path, 7)


def test_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(lock_base.TRAIN, "max_steps", 3)
    judged(world_of({"name": "lock", "horizon": 4, "solved": 8}), tmp_path, 7)


def test_a_world_that_there_is_not() -> None:
    with pytest.raises(ValueError, match=r"unknown world 'lap'.*lab"):
        world_of({"name": "lap"})
    with pytest.raises(ValueError, match="horizon"):
        world_of({"name": "lock", "horizon": 0})
    with pytest.raises(ValueError, match=r"world: expected"):
        world_of({"horizon": 3})
