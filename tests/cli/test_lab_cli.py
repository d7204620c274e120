"""`onestage lab base` and `onestage lab rows`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from onestage.cli._terminal import app
from onestage.studies.lab import ground
from onestage.studies.lab.presets import pretraining_settings
from onestage.studies.lab.world import SIZES, LabWorld


def call(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


def test_rows_are_written(tmp_path: Path) -> None:
    assert "21 files" in call("lab", "rows", "--seed", 4, "--out", tmp_path)
    assert len((tmp_path / "pair.test.jsonl").read_text().splitlines()) == len(
        LabWorld(4).rows("pair", "test")
    )
    said = " ".join(call("lab", "rows", "--seed", 5, "--out", tmp_path, code=1).split())
    assert "is there already; choose another --out, or replace it with --force" in said


def test_a_base_is_made_and_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIZES, "small", replace(SIZES["small"], documents=100))
    settings = {**pretraining_settings(), "max_steps": 1}
    monkeypatch.setattr(ground, "pretraining_settings", lambda _: settings)
    first = call("lab", "base", "--out", tmp_path)
    assert "pretraining" in first
    second = call("lab", "base", "--out", tmp_path)
    assert "base model found" in second
    assert first.splitlines()[-1] == second.splitlines()[-1]
    assert (Path(second.splitlines()[-1]) / "model.safetensors").is_file()


def test_an_unknown_size_is_refused(tmp_path: Path) -> None:
    text = call("lab", "base", "--size", "huge", "--out", tmp_path, code=1)
    assert not list(tmp_path.iterdir())
    assert "Traceback" not in text
