"""The five minutes of `docs/quickstart.md`, as they are typed there, with a tiny model."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from support.markdown import blocks
from support.tiny import ROOT
from typer.testing import CliRunner

from onestage.cli._terminal import app

PAGE = ROOT / "docs" / "quickstart.md"


def test_the_first_five_minutes(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ((_, table),) = blocks(PAGE, "csv")
    Path("ratings.csv").write_text(table)
    commands = [line for _, block in blocks(PAGE, "console") for line in block.splitlines()]
    assert [line.split()[1] for line in commands] == [
        *("check", "init", "check", "train", "sample", "report"),
    ]
    for line in commands:
        words = shlex.split(line.replace("Qwen/Qwen3-0.6B", str(model_folder)))
        done = CliRunner().invoke(app, words[1:], catch_exceptions=False)
        assert done.exit_code == 0, f"{line}\n{done.output}"
    assert (tmp_path / "runs" / "first" / "model" / "config.json").is_file() or (
        tmp_path / "runs" / "first" / "model" / "adapter_config.json"
    ).is_file()
    assert "<html" in (tmp_path / "report.html").read_text()[:500]
