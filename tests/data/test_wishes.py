"""Wished ratings: the same words in training and in asking, wherever the user's first words stand."""

from __future__ import annotations

import pytest

from onestage.data._row_error import RowError
from onestage.data.rows import record_of
from onestage.data.stream import Stream
from onestage.data.wishes import read_wish, wished

ROW = {"prompt": "What is a chain?", "completion": "Links.", "helpfulness": 4, "verbosity": 0.5}
STREAM = Stream("rated.jsonl", wishes=["helpfulness", "verbosity"])


def test_ratings_stand_before_the_prompt() -> None:
    record = record_of(ROW, STREAM, "rated.jsonl:1")
    assert record.kind == "demonstration"
    assert record.prompt == "<helpfulness: 4> <verbosity: 0.5>\nWhat is a chain?"
    assert record_of(ROW, Stream("rated.jsonl"), "x").prompt == "What is a chain?"


def test_a_user_asks_in_the_same_words() -> None:
    wishes = dict(map(read_wish, ["helpfulness=4", "verbosity=0.50"]))
    assert wished("What is a chain?", wishes) == record_of(ROW, STREAM, "x").prompt


def test_a_number_in_a_table_is_the_number_that_a_user_asks_for() -> None:
    record = record_of({**ROW, "helpfulness": "4.0", "verbosity": "0.50"}, STREAM, "x")
    assert record.prompt == "<helpfulness: 4> <verbosity: 0.5>\nWhat is a chain?"


def test_in_a_conversation_they_stand_before_the_users_first_words() -> None:
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Good day."},
        {"role": "user", "content": "And now?"},
        {"role": "assistant", "content": "Goodbye."},
    ]
    row = {"messages": messages, "helpfulness": "high", "verbosity": 1}
    record = record_of(row, STREAM, "x")
    said = [m["content"] for turns in (record.prompt, *record.completions) for m in turns]
    assert said[:2] == ["Be kind.", "<helpfulness: high> <verbosity: 1>\nHello."]
    assert said[3] == "And now?"


def test_pairs_and_the_ratings_that_make_a_score_can_have_them_too() -> None:
    pair = {"prompt": "Hi", "chosen": "Hello.", "rejected": "What?", "helpfulness": 3}
    assert record_of(pair, Stream("p.jsonl", wishes=["helpfulness"]), "x").prompt.endswith("Hi")
    rated = Stream(
        "p.jsonl", wishes=["helpfulness"], ratings={"helpfulness": 1}, score_range=(0, 4)
    )
    record = record_of({"prompt": "Hi", "completion": "Hello.", "helpfulness": 3}, rated, "x")
    assert (record.kind, record.scores) == ("score", (0.75,))
    assert record.prompt == "<helpfulness: 3>\nHi"


@pytest.mark.parametrize(
    ("value", "found"), [(None, "null"), (True, "true"), ("", "''"), (float("nan"), "nan")]
)
def test_a_row_without_the_rating_is_refused(value: object, found: str) -> None:
    with pytest.raises(RowError, match="verbosity, which must be a number or a word"):
        record_of({**ROW, "verbosity": value}, STREAM, "x")


def test_what_is_no_wish() -> None:
    with pytest.raises(ValueError, match="NAME=VALUE"):
        read_wish("helpfulness")
    with pytest.raises(RowError, match="no user says anything"):
        wished(({"role": "system", "content": "Be kind."},), {"a": 1.0})
    with pytest.raises(ValueError, match="wishes"):
        Stream("rated.jsonl", wishes=["helpfulness", "helpfulness"])
