"""The demo's path, with a few steps instead of its own number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from onestage import demo
from onestage.lab import ground
from onestage.lab.evaluation import METRICS
from onestage.records.record import ANSWERED
from onestage.watcher import Watcher


def test_the_demo_builds_trains_and_compares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**ground.pretraining_settings(), "max_steps": 3}
    monkeypatch.setattr(ground, "pretraining_settings", lambda _: settings)
    monkeypatch.setattr(demo, "FINE_TUNING", {**demo.FINE_TUNING, "max_steps": 2, "eval_steps": 2})
    said: list[str] = []
    console = Console(record=True, width=120, file=(tmp_path / "screen").open("w"))
    runs = [demo.run_demo(tmp_path, 0, console, said.append, Watcher) for _ in range(2)]
    text = console.export_text()
    assert "Before and after one stage" in text
    assert all(name in text for name in METRICS)
    assert [run.name for run in runs] == ["one-stage", "one-stage-2"]
    assert sum("base model found" in line for line in said) == 1
    found = json.loads((runs[0] / "demo.json").read_text())
    assert set(found) == {"before", "after"}
    assert found["before"] != found["after"]
    table = json.loads((runs[0] / "data.json").read_text())["train"]
    assert set(table) == {f"{kind}s" for kind in ANSWERED}
    first, second = (json.loads((run / "demo.json").read_text()) for run in runs)
    assert first == second
