"""What rows can be read with and hardly mean is counted, at the first door; none of it is dropped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from onestage.cli import app
from onestage.data import oddities
from onestage.data.reading import read
from onestage.data.recognise import advice
from onestage.data.record import Record, Refusal
from onestage.data.stream import Stream

ASKED = "What is two plus two?"
TURNS = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": "four"}]
PRINTED = "[{'role': 'user', 'content': 'Hi'}\n {'role': 'assistant', 'content': 'Hello'}]"


def row(prompt: str = ASKED, completion: Any = "four", **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "completion": completion, **more}


@pytest.mark.parametrize(
    ("one", "note"),
    [
        (row(completion="nan"), oddities.EMPTY),
        (row(prompt="N/A"), oddities.EMPTY),
        ({"instruction": "Say hi", "input": "<noinput>", "output": "hi"}, oddities.EMPTY),
        ({"messages": [TURNS[0], {"role": "assistant", "content": "None"}]}, oddities.EMPTY),
        (row(completion="['four']"), oddities.LISTED),
        (row(completion='{"role": "assistant", "content": "four"}'), oddities.LISTED),
        (row(completion="Itâ€™s four"), oddities.GARBLED),
        (row(completion="It\ufffds four"), oddities.GARBLED),
        (row(completion="Ã¼ber"), oddities.GARBLED),
        (row(completion=f"{ASKED} four"), oddities.TWICE),
        ({"prompt": ASKED, "chosen": "four", "rejected": " four\n"}, oddities.SPACES),
        (row(split="Test"), oddities.OTHERS),
    ],
)
def test_what_looks_like_a_mistake_is_counted_and_read(one: dict[str, Any], note: str) -> None:
    reading = read([one, one])
    assert all(isinstance(item, Record) for item in reading)
    assert reading.notes() == {note: 2}


@pytest.mark.parametrize(
    "one",
    [
        row(completion='["Paris", "London"]'),
        row(completion='{"name": "f", "arguments": {}}'),
        row(completion="SÃO PAULO, Übermut, naïve, 5 € “so”"),
        row(prompt="Hi", completion="Hi there"),
        row(completion="None of them is."),
        row(split="train"),
        {"prompt": ASKED, "chosen": "four", "rejected": "fo ur"},
    ],
)
def test_ordinary_rows_are_not_noted(one: dict[str, Any]) -> None:
    reading = read([one])
    assert all(isinstance(item, Record) for item in reading)
    assert reading.notes() == {}


def test_check_says_it_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row(completion="nan")) + "\n" + json.dumps(row()) + "\n")
    said = CliRunner().invoke(app, ["check", str(file)])
    assert said.exit_code == 0
    assert f"warning: rows: 1 records: {oddities.EMPTY}" in said.output


@pytest.mark.parametrize("text", [PRINTED, json.dumps([{"from": "human", "value": "Hi"}])])
def test_messages_that_are_text_and_cannot_be_read_are_no_response(text: str) -> None:
    (refused,) = read([{"prompt": ASKED, "chosen": text, "rejected": "four"}])
    assert isinstance(refused, Refusal)
    assert "`chosen` holds messages as text that cannot be read" in refused.reason


def test_system_beside_messages_is_their_system_message() -> None:
    for system in ("Be kind.", [{"type": "text", "text": "Be kind."}]):
        reading = read([{"system": system, "messages": TURNS}])
        (found,) = reading
        assert isinstance(found, Record)
        assert found.completions[0] == ({"role": "system", "content": "Be kind."}, *TURNS)
        assert reading.unused() == {}
    own = [{"role": "system", "content": "Be kind."}, *TURNS]
    same, other = read([{"system": s, "messages": own} for s in ("Be kind.", "Be rude.")])
    assert isinstance(same, Record)
    assert same.completions == (tuple(own),)
    assert isinstance(other, Refusal)
    assert "both a `system` column and another system message" in other.reason


def test_whole_numbers_that_pandas_wrote_as_floats_are_ids() -> None:
    found, refused = read([row(id=7.0), row(id=7.5)])
    assert isinstance(found, Record)
    assert found.id == "7"
    assert isinstance(refused, Refusal)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"response_1": "four", "response_2": "five", "label": 1}, ""),
        (
            {"response": "four", "rating": "4/5"},
            "column 'rating' looks like `score` and is left out: "
            "`score` must be a number, found str '4/5'",
        ),
    ],
)
def test_advice_names_no_one_of_two_answers_and_leaves_no_feedback_out_unsaid(
    more: dict[str, Any], said: str
) -> None:
    told = advice(Stream([{"prompt": ASKED, **more}]))
    assert (told[0] if told else "") == said


def test_a_file_of_another_kind_says_what_makes_rows_of_it(tmp_path: Path) -> None:
    for name, first in (("a.jsonl.zst", "zstd -d"), ("a.db", "sqlite3 -header"), ("a.pdf", "")):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(ValueError, match=r"cannot read this kind of file") as refused:
            list(read(str(tmp_path / name)))
        assert ("first: " in str(refused.value)) == bool(first)
        assert first in str(refused.value)
