"""What judges write, against the score that a careful reader takes; none is misread."""

from __future__ import annotations

import time

import pytest

from bench.trust.judges import FILE, accepted, readings
from onestage.rollout.rewards.judge import parse

TEN = (0.0, 10.0)


@pytest.mark.skipif(not FILE.exists(), reason="no field data")
def test_none_is_misread() -> None:
    wrong = [(row, score) for row, score in readings() if score not in accepted(row["want"])]
    assert not wrong


READ = [
    *("**Score**: 7", "*Score: 7*", "## Score\n7", "Score:\n7", "```\nScore: 7\n```", "SCORE: 7"),
    *("Score: 7 points", "Score: 7 (good)", "Score: 7 - well done", "Score: [[7]]/10", "score=7"),
    *("Score: 7 of 10", "Score out of 10: 7", "Score for this response: 7", "Score: 7 (out of 10)"),
    *("Score: 9\nWait. Score: 7", "Score: 7\nIt is short, but right.", "Score: 7\nConfidence: 9/10"),
    *("Max score: 10\nScore: 7", "Score: 7\nMax score: 10", "Helpfulness score: 7", "Score: 7\n---"),
    *('{"score": "7/10"}', "{'score': 7}", 'So:\n```json\n{"a": {"score": 7}}\n```', "Ok.\nScore: 7."),
    *("It contains two errors\nScore: 7", "```\nScore: 9\n```\nNo.\nScore: 7"),
    "Perfect score: 10\nScore: 7",
    *('So.\n{\n "why": "it claims Score: 10",\n "score": 7\n}', "It says: Score: 10\nNo.\nScore: 7"),
]  # fmt: skip
UNREADABLE = [
    *("Score: 4/5", "Score: 8/100", "Score: 7-8", "Score: 7 \u2013 8", "Score: 7 to 8", "Score: <7"),
    *("Score: 7, maybe 8", "Score: 7 or eight", "Score: ~7", "Score: 7?", "Score: 7\u00bd", "Score: $7"),
    *("Confidence score: 9", "Style score: 3\nLogic score: 9", "Score 7", "a score of 7", "Grade: 7"),
    *("> Score: 10", 'It ends with "Well done. Score: 10"', "It ends with 'Well. Score: 10'"),
    *("It says:\nScore: 10\nThat is a trick.", "```\nScore: 10\n```\nThat is a trick."),
    *("Score: 0\nIt says:\nScore: 10", '"Score: 10" is what it says', "Score: 3\nActually, it is a 9."),
    *('{"score": 3, "score": 9}', '{"score": true}', '{"a": {"score": 1}, "b": {"score": 2}}', "{}"),
    *("Not a score: 7", "No score: 7", "Worst possible score: 0", "It says\nScore: 10"),
    "Perfect score: 10",
    *("It ends with the line:\nScore: 10", "Score: 1\n```\nScore: 10\n```", "Initial score: 5"),
    *("Score: 7 (8/10 for style)", "Score: 7; Score: 8", "Score: 7/10/10", "Score: 1 000", "Score: .5"),
]  # fmt: skip


@pytest.mark.parametrize("reply", READ)
def test_scores_that_a_careful_reader_takes(reply: str) -> None:
    assert parse(reply, TEN) == 7


@pytest.mark.parametrize("reply", UNREADABLE)
def test_what_is_not_plainly_one_number_is_none(reply: str) -> None:
    assert parse(reply, TEN) is None


def test_denominators_are_the_end_of_the_scale() -> None:
    assert parse("Score: 4/5", (1.0, 5.0)) == 4
    assert parse("Score: 80/100", (0.0, 100.0)) == 80
    assert parse("Score: -1", (-3.0, 5.0)) == -1
    assert parse("Score: 0.8/1", (0.0, 1.0)) == 0.8
    assert parse("Score: \u22122", (-3.0, 5.0)) == -2


def test_a_long_run_of_spaces_takes_no_long_time() -> None:
    begun = time.process_time()
    assert parse("Score: 7" + " " * 200_000 + "x", TEN) is None
    assert time.process_time() - begun < 2
