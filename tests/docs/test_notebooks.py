"""The notebooks of `docs/notebooks`: their cells run in order, with a tiny model in place of theirs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.tiny import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


def cells(notebook: Path, sort: str) -> list[str]:
    held = json.loads(notebook.read_text())["cells"]
    return ["".join(cell["source"]) for cell in held if cell["cell_type"] == sort]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_cells_run_in_order(
    notebook: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ONESTAGE_CACHE", str(tmp_path / "cache"))
    code = cells(notebook, "code")
    assert sum(MODEL in cell for cell in code) == 1
    names: dict[str, Any] = {"__name__": "notebook"}
    for number, cell in enumerate(code, 1):
        exec(compile(cell.replace(MODEL, str(model_folder)), f"cell {number}", "exec"), names)
    if notebook.stem == "first_run":
        assert names["run"].done
        assert len(names["after"]) == 2
        assert Path("report.html").is_file()
    else:
        assert names["step"] == names["STEPS"]
        assert 0 < names["left"]["sft"] < 1  # it has learnt something
        assert Path("mine/config.json").is_file()


def test_there_are_two_and_they_hold_what_they_printed() -> None:
    assert [notebook.stem for notebook in NOTEBOOKS] == ["first_run", "own_loop"]
    for notebook in NOTEBOOKS:
        text = notebook.read_text()
        printed = [cell.get("outputs") for cell in json.loads(text)["cells"]]
        assert any(printed)
        assert not re.search(r"/(?:tmp|home|root|work|Users)/", text)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_lead_somewhere(notebook: Path) -> None:
    text = "\n".join(cells(notebook, "markdown"))
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert links
    assert not [link for link in links if not (notebook.parent / link).exists()]
