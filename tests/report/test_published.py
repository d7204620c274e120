"""Published rows: what a paper's numbers must satisfy among themselves, and a model's row under them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from support.report_folders import make_run

from onestage.report.page import page, read_folders
from onestage.report.published import models_of, published_section, tables
from onestage.report.reading import Reader

NEW = ("bbh", "gpqa", "mmlu_pro", "musr", "ifeval", "math_hard")
OLD = ("gsm8k", "truthfulqa", "winogrande", "arc", "hellaswag", "mmlu")


def test_printed_averages_are_those_of_the_columns() -> None:
    """But for one row of UFT's table 9, whose mean is 30.05 where 30.08 is printed."""
    checked = 0
    for one in tables():
        for row in one["rows"]:
            assert len(row) == len(one["columns"]) + 1
            cells: dict[str, float] = dict(zip(one["columns"], row[1:], strict=True))
            for name, columns in (("average_new", NEW), ("average_old", OLD)):
                if name in cells and (row[0], cells[name]) != ("1e-4/.01", 30.08):
                    mean = sum(cells[c] for c in columns) / 6
                    assert cells[name] == pytest.approx(mean, abs=0.02)
                    checked += 1
        assert one["against"] in [row[0] for row in one["rows"]]
    assert checked == 85


def evaluation(chat: bool) -> dict[str, Any]:
    metrics = {"mean": {"value": 0.5, "stderr": 0.02}}
    grades = {"score": {"value": 6.5, "stderr": 0.1}}
    name = "onestage.rollout.suites.{}:{}"
    return {
        "suites": {
            "ifeval": {"options": {"name": name.format("ifeval", "IFEval")}},
            "mt_bench": {"options": {"name": name.format("mt_bench", "MTBench")}},
        },
        "models": [
            {"name": "far/base", "base": None, "suites": {}},
            {
                "name": "runs/first/model",
                "base": "far/base",
                "suites": {
                    "ifeval": {"chat": chat, "metrics": metrics},
                    "mt_bench": {"chat": True, "metrics": grades},
                },
            },
        ],
    }


@pytest.mark.parametrize("chat", [False, True])
def test_a_models_row_stands_under_the_published_ones(tmp_path: Path, chat: bool) -> None:
    """50 - 46.03 = 3.97 and 6.5 - 6.78 = -.28; IFEval through a template is not the papers'."""
    run = make_run(tmp_path / "first")
    folder = run if isinstance(run, Path) else tmp_path / "first"
    (folder / "evaluation").mkdir()
    (folder / "evaluation" / "evaluation.json").write_text(json.dumps(evaluation(chat)))
    chapters = read_folders([folder])
    text = page(chapters, "a page")
    assert "UFT, Wang et al., arXiv 2410.21438v1, tables 1 to 3" in text
    assert ("50.00 ± 2.00" in text) is not chat
    assert ("+3.97 ± 2.00" in text) is not chat
    assert "6.50 ± 0.10" in text
    assert "-0.28 ± 0.10" in text
    (row,) = dict(models_of(folder, Reader())).values()
    assert row["mt_bench"].value == 6.5
    # What lies in another run, and was measured together with this one, is not called by its name.
    both = evaluation(chat)
    other = make_run(tmp_path / "second" / "first") / "model"
    both["models"].append({**both["models"][1], "name": str(other)})
    both["models"].append({**both["models"][1], "name": "far/model"})
    (folder / "evaluation" / "evaluation.json").write_text(json.dumps(both))
    assert [*dict(models_of(folder, Reader()))] == [
        *("first: model", "second/first: model", "far: model")
    ]
    # What was trained again since has no row.
    (folder / "model" / "model.safetensors").write_bytes(b"")
    os.utime(folder / "evaluation" / "evaluation.json", (1000, 1000))
    assert "first: model" not in dict(models_of(folder, Reader()))


def test_other_shots_or_a_template_are_not_the_papers(tmp_path: Path) -> None:
    def columns(suite: str, metric: str, chat: bool, **options: Any) -> set[str]:
        told = {"chat": chat, "metrics": {metric: {"value": 0.5, "stderr": 0.02}}}
        name = f"onestage.rollout.suites.{suite}:Suite"
        content = {
            "suites": {suite: {"options": {"name": name, **options}}},
            "models": [{"name": "far/model", "base": None, "suites": {suite: told}}],
        }
        (tmp_path / "evaluation.json").write_text(json.dumps(content))
        ((_, numbers),) = models_of(tmp_path, Reader())
        return set(numbers)

    assert columns("gsm8k", "mean", False, shots=5) == {"gsm8k"}
    assert columns("gsm8k", "mean", False, shots=0) == set()
    assert columns("mmlu", "mmlu", False, shots=1) == {"mmlu_1_shot"}
    assert columns("mmlu", "mmlu", False, shots=5) == set()
    assert columns("open_llm_v1", "average", False) == {"average_old"}
    assert columns("open_llm_v1", "average", True) == set()


def test_numbers_of_a_part_of_the_items_are_marked(tmp_path: Path) -> None:
    """As `--limit` leaves them, or a file with fewer prompts than the benchmark has."""
    make_run(tmp_path / "first")
    content = evaluation(chat=False)
    place = tmp_path / "first" / "evaluation.json"

    def shown(items: int, limit: int | None, of_benchmark: int | None = None) -> str:
        asked = {"items": items, "of_benchmark": of_benchmark}
        content["models"][1]["suites"]["ifeval"] |= asked
        content["suites"]["ifeval"]["options"]["limit"] = limit
        place.write_text(json.dumps(content))
        return page(read_folders([tmp_path / "first"]), "a page")

    assert "50.00 ± 2.00 *" not in shown(541, None)
    text = shown(64, None)
    assert "50.00 ± 2.00 *" in text
    assert "+3.97 ± 2.00 *" in text
    assert "not of all items: first: model, ifeval: 64 of 541." in text
    assert "6.50 ± 0.10 *" not in text
    assert "50.00 ± 2.00 *" in shown(100, 100)
    # 64 prompts of the user's own are nothing to compare with, 64 of the benchmark's are.
    assert "50.00 ± 2.00" not in shown(64, None, of_benchmark=0)
    assert "50.00 ± 2.00 *" in shown(64, None, of_benchmark=60)
    tasks = {"options": {"name": "onestage.rollout.suites.open_llm_v1:OpenLLMv1", "limit": 100}}
    content["suites"]["open_llm_v1"] = tasks
    content["models"][1]["suites"]["open_llm_v1"] = {
        "items": 5700,
        "metrics": {"mmlu": {"value": 0.25, "stderr": 0.01}},
    }
    assert "first: model, mmlu: the first 100 of each task" in shown(541, None)


def test_nothing_is_shown_where_nothing_was_measured(tmp_path: Path) -> None:
    make_run(tmp_path / "first")
    (chapter,) = read_folders([tmp_path / "first"])
    assert published_section(chapter) is None
    (tmp_path / "first" / "evaluation.json").write_text("{")
    assert published_section(chapter) is None
    assert any("evaluation.json is damaged" in one.what for one in chapter.troubles)
