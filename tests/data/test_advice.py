"""What `check` says of columns that the block it offers leaves out, and of rows that are problems."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from support.rows import lines_of, read_all
from support.shapes import FOUR, USER

from onestage.data.reading import read
from onestage.data.recognise import advice
from onestage.data.stream import Stream


def offered(path: Path) -> tuple[list[str], dict[str, Any]]:
    """(the lines before the block, its options)."""
    lines = advice(Stream(path))
    at = lines.index("data:")
    (options,) = yaml.safe_load("\n".join(lines[at:]))["data"]
    assert options.pop("path") == str(path)
    return lines, options


@pytest.mark.parametrize("column", ["is_safe", "correct", "is_correct", "Approved"])
def test_answers_that_were_judged_are_thumbs(column, write):
    """PKU's BeaverTails and checked solutions: half of them are there because they are bad."""
    rows = [{"prompt": "a?", "response": "b", column: good} for good in (True, False)]
    path = write("a.jsonl", lines_of(*rows))
    _, options = offered(path)
    assert [record.scores for record in read(path, **options)] == [(1.0,), (0.0,)]


@pytest.mark.parametrize(
    ("column", "held"),
    [("feedback", "thumbs_up"), ("sentiment", "bad"), ("disliked", True), ("Quality", "4/5")],
)
def test_a_judgement_in_other_words_is_not_left_out_in_silence(column, held, write):
    path = write("a.jsonl", lines_of({"prompt": "a?", "response": "b", column: held}))
    lines, _ = offered(path)
    assert f"column {column!r} may judge the response and is left out" in lines[0]
    assert lines[-1] == f"  # without the columns {column!r}"


def test_a_correct_answer_is_no_judgement(write):
    """SciQ: the words of another column of ours, not a yes or no."""
    row = {"prompt": "a?", "response": "b", "correct_answer": "c"}
    lines, options = offered(write("a.jsonl", lines_of(row)))
    assert options["columns"] == {"completion": "response"}
    assert "label" not in " ".join(lines)


@pytest.mark.parametrize("column", ["context", "Body", "input"])
def test_a_part_of_the_question_is_not_left_out_in_silence(column, write):
    row = {"prompt": "What colour?", "response": "green", column: "The sky is green."}
    lines, _ = offered(write("a.jsonl", lines_of(row)))
    assert f"column {column!r} may be a part of what is asked and is left out" in lines[0]


def test_so_are_the_choices_of_a_letter(write):
    row = {"question": "Sky?", "A": "blue", "B": "red", "answer": "A"}
    lines, _ = offered(write("a.jsonl", lines_of(row)))
    assert [line.split()[1] for line in lines[:2]] == ["'A'", "'B'"]


def test_what_is_a_system_text_elsewhere_is_read_as_one(write):
    rows = [{"system_prompt": "Be brief.", "prompt": "2+2?", "response": "4"}]
    path = write("a.jsonl", lines_of(*rows))
    _, options = offered(path)
    (record,) = read(path, **options)
    assert record.prompt == ({"role": "system", "content": "Be brief."}, USER)
    reading = read(write("b.jsonl", lines_of({"system_prompt": "x", "messages": [USER, FOUR]})))
    assert len(list(reading)) == 1
    assert reading.unused() == {"system_prompt": "system"}


@pytest.mark.parametrize(
    "row",
    [
        {"problem": "2+2?", "answer": "4"},
        {"problem": "2+2?", "answer": "4", "solution": "Count."},
        {"question": "2+2?", "answer": "4", "solution": "Count."},
    ],
)
def test_an_answer_to_compare_with_is_not_imitated(row, write):
    """Big-Math, NuminaMath 1.5, LIMO: the answer is the bare result."""
    path = write("a.jsonl", lines_of(row))
    lines, options = offered(path)
    (record,) = read(path, **options)
    assert (record.kind, record.facts["answer"]) == ("check", "4")
    assert ("to imitate their solutions" in lines[0]) == ("solution" in row)


def test_rows_that_are_read_can_also_be_made_problems(write):
    """NuminaMath-CoT has its solutions as messages, too."""
    row = {"problem": "1+1?", "solution": "It is \\boxed{2}.", "messages": [USER, FOUR]}
    (told,) = advice(Stream(write("a.jsonl", lines_of(row))))
    assert told.startswith("1 of the first 1 rows can be made problems of math, by: onestage")


def test_a_file_of_conversations_without_a_name_is_told_one(write):
    path = write("a.jsonl", lines_of([USER, FOUR]))
    with pytest.raises(ValueError, match=r"one conversation, .* jq -c '\{messages: \.\}' FILE"):
        read_all(path)
    spoken = [{"from": "human", "value": "2+2?"}]
    with pytest.raises(ValueError, match=r"jq -c '\{conversations: \.\}' FILE"):
        read_all(write("b.jsonl", lines_of(spoken)))


def test_winners_are_read_in_other_words_and_systems_are_kept(write, tmp_path):
    from onestage.data.convert import convert

    row = {"prompt": "2+2?", "response_a": "5", "response_b": "4"}
    said = ("B", "Response_B", "assistant_b")
    rows = [{**row, "winner": winner, "system": f"Be {winner}."} for winner in said]
    convert(Stream(write("a.jsonl", lines_of(*rows))), tmp_path / "out.jsonl")
    made = read_all(tmp_path / "out.jsonl")
    assert [one.completions[0] for one in made] == [(FOUR,)] * 3
    assert [one.prompt[0]["content"] for one in made] == [f"Be {winner}." for winner in said]


def test_constraints_in_words_of_their_own_are_left_out(write, tmp_path):
    from onestage.data.convert import convert

    row = {"messages": [USER], "ground_truth": '{"func_name": "x"}', "constraint": "Be brief."}
    plain = {"messages": [USER], "ground_truth": "4"}
    found = convert(Stream(write("a.jsonl", lines_of(row, plain))), tmp_path / "out.jsonl")
    ((reason, count),) = found.left_out.items()
    assert (count, "no reward here judges" in reason) == (1, True)
