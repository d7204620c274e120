"""What the base answers itself: which problems it solves sometimes, whose answers are shown."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from onestage.rollout.complete import Drawn
from onestage.studies.lab import tried
from onestage.studies.lab.tried import EACH, write_tried

PROBLEMS = [
    {"prompt": "what is the food of pudu? answer:", "answer": ["the food is barley.", "barley."]},
    {"prompt": "always?", "answer": ["yes."]},
    {"prompt": "never?", "answer": ["no."]},
    {"prompt": "what is the food of pudu? answer:", "answer": ["the food is barley.", "barley."]},
]
SAID = {
    PROBLEMS[0]["prompt"]: [
        *(Drawn(" the food is barley. a fox is red.", True), Drawn(" barley. and so on", False)),
        Drawn(" the food is rice.", True),
    ],
    "always?": [Drawn("yes.", True)] * 3,
    "never?": [Drawn("yes.", True), Drawn("yes.", False), Drawn("maybe.", True)],
}


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A world of these problems, and a base that says these answers by turns."""

    def said(policy: Any, prompts: list[str], how: Any, *, seed: int) -> list[Drawn]:
        assert (how.max_completion_length, how.temperature) == (64, 1.0)
        asked: dict[str, int] = {}
        found = []
        for prompt in prompts:
            found.append(SAID[prompt][asked.get(prompt, 0) % 3])
            asked[prompt] = asked.get(prompt, 0) + 1
        return found

    monkeypatch.setattr(tried, "drawn", said)
    monkeypatch.setattr(tried.models, "open", lambda folder: None)
    return SimpleNamespace(rows=lambda kind, split: PROBLEMS[: 4 if split == "train" else 1])


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def test_problems_that_are_solved_sometimes(base: Any, tmp_path: Path) -> None:
    """A problem that stands twice is one; what was cut is no demonstration, though it is right."""
    told = list[str]()
    write_tried(tmp_path, base, tmp_path / "x", 3, seed=0, say=told.append)
    assert rows(tmp_path / "x", "solved.train") == [PROBLEMS[0]]
    assert "1 problems" in told[0]
    mine = {"prompt": PROBLEMS[0]["prompt"], "completion": " the food is barley. a fox is red."}
    assert rows(tmp_path / "x", "right.train") == [mine] * EACH
    given = [row["completion"] for row in rows(tmp_path / "x", "given.train")]
    assert given == [" the food is barley.", " barley."] * (EACH // 2)
    assert rows(tmp_path / "x", "said.test") == [mine]
    write_tried(tmp_path, base, tmp_path / "x", 3, seed=1, say=told.append)  # is there
    assert len(told) == 1


def test_a_base_that_is_never_right_sometimes(base: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tried may be larger"):
        write_tried(tmp_path, base, tmp_path / "x", 1, seed=0, say=print)
    assert not (tmp_path / "x").exists()


def test_a_base_that_ends_at_once_has_said_nothing(
    base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row without text is refused by whoever reads it: three bases of 25 answered so once."""
    prompt = PROBLEMS[0]["prompt"]
    silent = [Drawn("", True), Drawn(" rice.", True), Drawn(" the food is barley.", True)]
    monkeypatch.setitem(SAID, prompt, silent)
    write_tried(tmp_path, base, tmp_path / "x", 8, seed=0, say=print)
    assert rows(tmp_path / "x", "said.test") == [{"prompt": prompt, "completion": " rice."}]
