"""What stands beside a row's own columns, in published rows: read, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from onestage.data._row_error import RowError
from onestage.data.convert import convert
from onestage.data.messages import messages_of
from onestage.data.recognise import advice
from onestage.data.record import Record
from onestage.data.rows import record_of
from onestage.data.stream import Stream

ASKED = {"role": "user", "content": "Hello"}
SYSTEM = {"role": "system", "content": "You are a pirate."}


def read(row: dict[str, Any], **stream: Any) -> Record:
    return record_of(row, Stream("rows.jsonl", **stream), "rows.jsonl:1")


def test_a_system_text_stands_in_front_of_its_prompt() -> None:
    """The persona of truthy-dpo's pairs, and of KTO's rows, was left out."""
    said = {"system": "You are a pirate.", "prompt": "Hello"}
    for more in (
        {"chosen": "Ahoy", "rejected": "Hi"},
        {"completion": "Ahoy"},
        {"completion": "Ahoy", "label": True},
        {"answer": "Ahoy"},
    ):
        assert read({**said, **more}).prompt == (SYSTEM, ASKED)
    assert read({**said, "prompt": [ASKED], "completion": "Ahoy"}).prompt == (SYSTEM, ASKED)
    assert read({"prompt": "Hello", "system": "", "completion": "Ahoy"}).prompt == "Hello"
    both = {
        "chosen": [ASKED, {"role": "assistant", "content": "Ahoy"}],
        "rejected": [ASKED, {"role": "assistant", "content": "Hi"}],
    }
    with pytest.raises(RowError, match="put it in front of both as a message of the role system"):
        read({"system": "You are a pirate.", **both})


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"text": "Write a sum.", "code": "def f(): ..."}, "found `code` beside `text`"),
        ({"text": "hi", "role": "prompter", "parent_id": None}, "found `role` beside `text`"),
        ({"text": "a long bill", "summary": "short"}, "columns: {prompt: text, completion: summary}"),
        ({"prompt": "2+2?", "response": "4", "answer": "reject"}, "found `response` beside `answer`"),
        ({"instruction": "As a doctor.", "question": "Why?", "answer": "C"}, "system: instruction"),
    ],
)  # fmt: skip
def test_a_part_is_not_taken_for_the_whole(row: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RowError, match=sentence.replace("{", r"\{").replace("?", r"\?")):
        read(row)


def test_what_the_refusals_say_works() -> None:
    assert read({"text": "a", "code": "b"}, kind="text").completions == ("a",)
    asked = read({"text": "a", "code": "b"}, columns={"prompt": "text", "completion": "code"})
    assert (asked.prompt, asked.completions) == ("a", ("b",))
    row = {"instruction": "You are a pirate.", "question": "Hello", "answer": "C"}
    names = {"prompt": "question", "system": "instruction"}
    assert read(row, columns=names).prompt == (SYSTEM, ASKED)
    named = read(
        {"question": "2", "context": "b", "answer": "c"},
        columns={"instruction": "question", "output": "answer"},
    )
    assert named.prompt == "2"
    renamed = read({"prompt": "2+2?", "response": "4"}, columns={"answer": "response"})
    assert renamed.facts == {"answer": "4"}
    row = {"prompt": "2+2?", "response": "4", "answer": "4"}
    assert read(row, kind="check").kind == "check"
    assert read(row, columns={"completion": "response"}).kind == "demonstration"


@pytest.mark.parametrize("wish", [{"loss_weight": 0.0}, {"training": False}])
def test_other_tools_words_for_turns_that_are_not_learned(wish: dict[str, Any]) -> None:
    turns = messages_of([ASKED, {"role": "assistant", "content": "bad", **wish}], "messages")
    assert turns[1] == {"role": "assistant", "content": "bad", "weight": 0.0}


def converted(tmp_path: Path, *rows: dict[str, Any]) -> list[dict[str, Any]]:
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    convert(Stream(str(tmp_path / "in.jsonl")), tmp_path / "out.jsonl")
    return [json.loads(line) for line in (tmp_path / "out.jsonl").open()]


def test_feedback_of_converted_rows_goes_with_them(tmp_path: Path) -> None:
    (row,) = converted(tmp_path, {"system": "", "question": "q", "response": "r", "label": False})
    assert row["label"] is False
    (row,) = converted(tmp_path, {"instruction": "q", "context": "", "response": "r", "score": 0.1})
    assert row["score"] == 0.1


def test_what_was_asked_keeps_what_belongs_to_it(tmp_path: Path) -> None:
    fields = {
        "instruction": "Translate",
        "input": "Hello",
        "output": "Hallo",
        "system": "Be brief.",
    }
    given = {"fields": fields, "responses": {"ok": [{"value": "yes", "user_id": "u"}]}}
    (row,) = converted(tmp_path, given)
    assert [turn["content"] for turn in row["prompt"]] == ["Be brief.", "Translate\n\nHello"]
    rated = {
        "instruction": "Translate",
        "input": "Hello",
        "response": "Hallo",
        "ratings": [0.1, 0.2],
        "annotators": ["a", "b"],
    }
    assert {row["prompt"] for row in converted(tmp_path, rated)} == {"Translate\n\nHello"}


def test_advice_leaves_an_instruction_its_input() -> None:
    row = {"instruction": "Translate to French.", "input": "Good morning", "response": "Bonjour"}
    told = "\n".join(advice(Stream([row], name="rows")))
    assert "completion: response" in told
    assert "prompt: instruction" not in told
