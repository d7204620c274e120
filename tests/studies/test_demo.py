"""The demo's path, with a few steps and documents instead of its own number; its study file as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from onestage.runfolder import read_json
from onestage.studies import demo
from onestage.studies.cells import reported
from onestage.studies.file import Budget
from onestage.studies.lab import presets
from onestage.studies.lab.world import SIZES
from onestage.studies.tuning import settled
from onestage.training.callbacks import Callback


def test_the_demo_builds_trains_compares_and_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = presets.PRESETS["small"]
    short = replace(small, train={**small.train, "max_steps": 3})
    monkeypatch.setitem(presets.PRESETS, "small", short)
    monkeypatch.setitem(SIZES, "small", replace(SIZES["small"], documents=400))
    few = demo.demo_study(3).model_copy(update={"budget": Budget(updates=4)})
    monkeypatch.setattr(demo, "demo_study", lambda seed: few)
    said: list[str] = []
    console = Console(record=True, width=200, file=(tmp_path / "screen").open("w"))
    for _ in range(2):
        out, cache = tmp_path / "out", tmp_path / "cache"
        outcome = demo.run_demo(out, 3, cache, 1, console, said.append, Callback)
        assert not outcome.failed
    assert sum("base model found" in line for line in said) == 1
    text = console.export_text()
    assert all(name in text for name in ("base", "SFT then DPO", "MAXRIGHT", "UFT", "knowledge"))
    page = tmp_path / "out" / "seed-3" / "report.html"
    assert said[-1] == f"report {page}"
    assert "SFT then DPO" in page.read_text()
    found = read_json(tmp_path / "out" / "seed-3" / "cells" / "UFT-seed=3" / "results.json")
    assert found["updates"] == 4
    assert 0 <= found["overall"] <= 1


def test_the_demo_spends_the_same_on_every_method() -> None:
    study = demo.demo_study(5)
    cells = [cell for cell in reported(study, settled(study)) if cell.recipe]
    assert [cell.method for cell in cells] == ["SFT then DPO", "MAXRIGHT", "UFT"]
    assert {tuple(cell.budget.items()) for cell in cells} == {(("updates", 192),)}
    assert {cell.seed for cell in cells} == {5}
