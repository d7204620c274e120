"""IFEval's answers, against a careful reader's verdicts: by our rules, and by the benchmark's own."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.tiny import SHARED

from onestage.rollout.rewards import Answer, Failure, make

FILE = SHARED / "field" / "answers" / "ifeval.jsonl"
pytestmark = pytest.mark.skipif(not FILE.exists(), reason="no field data")


def outcomes(**options: Any) -> list[tuple[dict[str, Any], float | Failure]]:
    rows = [json.loads(line) for line in FILE.read_text().split("\n") if line]
    checker = make({"name": "ifeval", "deadline": 20.0, **options})
    answers = [Answer("", row["response"], row["facts"]) for row in rows]
    return list(zip(rows, checker(answers), strict=True))


def test_no_wrong_answer_is_paid_and_few_right_ones_are_missed() -> None:
    found = outcomes()
    assert all(each.sort == "undecided" for _, each in found if isinstance(each, Failure))
    assert not [row for row, each in found if each == 1.0 and row["want"] != 1]
    right = [each for row, each in found if row["want"] == 1]
    assert right.count(1.0) >= 0.97 * len(right)


def test_the_benchmark_pays_wrong_ones() -> None:
    """So it is to compare scores by, and no reward; its errors are told, not hidden."""
    pytest.importorskip("lm_eval")
    pytest.importorskip("punkt")
    found = outcomes(rules="compat")
    failed = [each for _, each in found if isinstance(each, Failure)]
    assert [each.sort for each in failed] == ["raised"] * 2
    agree = [row for row, each in found if each == row["want"]]
    assert len([row for row, each in found if each == 1.0 and row["want"] == 0]) >= 5
    assert len(agree) >= 40
