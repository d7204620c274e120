"""What `onestage evaluate` found of runs' models, on the page and in the verdict."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from support.report_folders import make_run

from onestage.report.keeping import verdict_of
from onestage.report.page import read_folders


def suite(value: float, change: float, half: float, lower: bool = False) -> dict[str, Any]:
    apart = {"value": change, "low": change - half, "high": change + half}
    told = {"value": value, "lower_is_better": lower, "difference": apart}
    return {"items": 64, "metrics": {"mean": told, "prompt_level_acc": told, "part/acc": told}}


def evaluated(file: Path, models: dict[str, dict[str, Any]]) -> Path:
    listed = [{"name": "far/base", "base": None, "suites": {}}]
    listed += [{"name": n, "base": "far/base", "suites": {"ifeval": s}} for n, s in models.items()]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"suites": {"ifeval": {"headline": "mean"}}, "models": listed}))
    return file


def test_runs_that_were_measured_together_are_judged_by_that(tmp_path: Path) -> None:
    """.75 - .25 = .5 at the start; the run that surely gained is kept, not the one that may have not."""
    runs = [make_run(tmp_path / name) for name in ("a", "b")]
    found = {"elsewhere/a/model": suite(0.75, 0.25, 0.125), "b/model": suite(0.625, 0.125, 0.25)}
    evaluated(tmp_path / "evaluation" / "evaluation.json", found)
    (chapter,) = read_folders(runs)
    assert chapter.headline[0] == "ifeval mean"
    assert "ifeval prompt level acc" in chapter.metrics
    assert not any("part" in name for name in chapter.metrics)
    values = {one.method: chapter.values(one, "ifeval mean") for one in chapter.settings()}
    assert {m: [*v.values()] for m, v in values.items()} == {
        "start": [0.5],
        "a": [0.75],
        "b": [0.625],
    }
    halves = {name: certain["ifeval mean"] for name, certain in chapter.certain.items()}
    assert halves == {"a": 0.125, "b": 0.25}
    verdict = verdict_of(chapter, {"by": "ifeval mean", "allowed": 100})
    assert verdict is not None
    assert verdict.keep == "a"


def test_numbers_that_are_older_than_the_model_are_left_out(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    file = evaluated(run / "evaluation" / "evaluation.json", {"a/model": suite(0.6, 0.2, 0.1)})
    weights = run / "model" / "model.safetensors"
    weights.write_bytes(b"")
    os.utime(file, (1000, 1000))
    (chapter,) = read_folders([run])
    assert "ifeval mean" not in chapter.metrics
    assert any("older than the model" in one.what for one in chapter.troubles)
    os.utime(weights, (1000, 1000))
    (chapter,) = read_folders([run])
    assert "ifeval mean" in chapter.metrics
