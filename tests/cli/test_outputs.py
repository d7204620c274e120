"""No command writes over a file that is there: it is told to, or the page is one of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.tiny import write_rows
from typer.testing import CliRunner

from onestage.cli import app

OURS = "what somebody wrote\n"
ROW = {"prompt": "2+2?", "completion": " 4"}
COMMANDS = {
    "score": "score --model nowhere --data rows.jsonl --out mine",
    "sample": "sample --model nowhere --prompts rows.jsonl --out mine",
    "convert": "convert rows.jsonl mine.jsonl",
    "problems": "problems countdown --count 2 --out mine.jsonl",
    "eval": "eval nowhere --out mine",
    "front": "front nowhere --out mine",
    "schema": "schema --out mine",
    "init": "init rows.jsonl --out mine",
    "import": "import old.yaml --out mine",
}
"""Where a model is needed there is none: that all can be written is known before any is loaded."""


def said(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, words)
    return done.exit_code, " ".join(done.output.split())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "rows.jsonl", [ROW])
    (tmp_path / "old.yaml").write_text("model_name_or_path: m\nstage: sft\ndataset: d\n")
    return tmp_path


@pytest.mark.parametrize("name", COMMANDS)
def test_a_file_that_is_there_is_replaced_on_demand_alone(name: str, here: Path) -> None:
    words = COMMANDS[name].split()
    file = here / words[-1]
    file.write_text(OURS)
    code, told = said(*words)
    assert code == 1
    assert f"error: {file.name} is there already; choose another" in told
    assert "or replace it with --force" in told
    assert file.read_text() == OURS
    code, told = said(*words, "--force")
    assert "is there already" not in told
    assert (file.read_text() == OURS) == (code == 1)
    file.unlink()
    file.mkdir()
    assert "is a folder; give the name of a file" in said(*words, "--force")[1]


def test_pages_are_written_over_their_own_alone(here: Path) -> None:
    pages = {"--out": "page.html", "--latex": "table.tex", "--csv": "table.csv"}
    for option, name in pages.items():
        (here / name).write_text(OURS)
        code, told = said("report", "nowhere", option, name)
        assert code == 1
        assert f"{name} is there already and was not written by this command" in told
        assert (here / name).read_text() == OURS
    (here / "report.html").write_text(OURS)
    assert "report.html is there already" in said("report", "nowhere", "elsewhere")[1]
    (here / "claims.md").write_text(OURS)
    assert "claims.md is there already" in said("claims", "nowhere")[1]
