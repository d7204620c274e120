"""The reward `match`: accepted answers as text, by hand and as laws; and how a list gets to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onestage.data.encoded import ProblemFacts
from onestage.data.reading import raw_rows
from onestage.data.rows import record_of
from onestage.data.stream import Stream
from onestage.rollout import rewards as registry
from onestage.rollout.rewards import Answer
from onestage.rollout.rewards.match import LONGEST, Match

SEA = ["the Red Sea", "Red Sea"]


def judged(completion: str, accepted: Any, hint: str = "", **options: Any) -> float:
    reward = registry.make({"name": "match", **options})
    assert isinstance(reward, Match)
    return reward.judge(Answer("q", completion, {"answer": accepted}, hint=hint))


@pytest.mark.parametrize(
    ("completion", "accepted", "options", "reward"),
    [
        ("Red Sea", SEA, {}, 1.0),
        ("  the\tRED \n sea. ", SEA, {}, 1.0),
        ("the Red Sea", "the Red Sea", {}, 1.0),
        ("Sea", SEA, {}, 0.0),
        ("RedSea", SEA, {}, 0.0),
        ("the Red Sea and more", SEA, {}, 0.0),
        ("", SEA, {}, 0.0),
        ("**Red Sea**", SEA, {}, 1.0),
        ("It is **Red Sea.**\n", "sea", {"part": "last_word"}, 1.0),
        ("Red\u200b Sea<|im_end|>", SEA, {}, 1.0),
        ("red sea", SEA, {"ignore_case": False}, 0.0),
        ("Red Sea", SEA, {"ignore_case": False}, 1.0),
        ("Red Sea.", SEA, {"ignore_final_marks": False}, 0.0),
        ("STRASSE", "Straße", {}, 1.0),
        ("cafe\u0301", "caf\u00e9", {}, 1.0),
        ("Red Sea. It is warm.", SEA, {"part": "first_sentence"}, 1.0),
        ("It is warm. Red Sea.", SEA, {"part": "first_sentence"}, 0.0),
        ("I think so\n Red Sea \n\n", SEA, {"part": "last_line"}, 1.0),
        ("Red Sea\nI think", SEA, {"part": "last_line"}, 0.0),
        ("so it is 42.", "42", {"part": "last_word"}, 1.0),
        ("42 or so", "42", {"part": "last_word"}, 0.0),
        ("", "42", {"part": "last_word"}, 0.0),
        ("", "42", {"part": "first_sentence"}, 0.0),
        ("a b x d", "a b c d", {"partial": "leading"}, 0.5),
        ("x b c d", "a b c d", {"partial": "leading"}, 0.0),
        ("a b", "a b c d", {"partial": "leading"}, 0.5),
        ("a b c d e", "a b c d", {"partial": "leading"}, 0.8),
        ("a b", ["x y", "a c", "a b c"], {"partial": "leading"}, 2 / 3),
        ("", "a b", {"partial": "leading"}, 0.0),
        ("a " * LONGEST, "a", {"partial": "leading"}, 0.0),
    ],
)
def test_by_hand(completion: str, accepted: Any, options: dict[str, Any], reward: float) -> None:
    assert judged(completion, accepted, **options) == pytest.approx(reward)


@pytest.mark.parametrize(
    ("hint", "completion", "part", "reward"),
    [
        ("left ", "right", "whole", 1.0),
        ("left right", "", "whole", 1.0),  # it was right to stop
        ("left right", " left", "whole", 0.0),
        ("So it is\nleft right", "", "last_line", 0.0),  # given, not found
        ("So it is\n", "left right", "last_line", 1.0),
        ("left right. ", "Or so.", "first_sentence", 0.0),
        ("left ", "right. Or so.", "first_sentence", 1.0),
    ],
)
def test_behind_a_hint(hint: str, completion: str, part: str, reward: float) -> None:
    assert judged(completion, "left right", hint, part=part) == reward


WORDS = st.lists(st.text("abcXYZ", min_size=1, max_size=4), min_size=1, max_size=6)


@given(WORDS, WORDS, st.sampled_from([" ", "\n", "\t \n"]))
def test_right_alone_earns_all(words: list[str], said: list[str], between: str) -> None:
    answer, text = " ".join(words), between.join(said)
    right = [word.lower() for word in words] == [word.lower() for word in said]
    assert judged(text, ["other one", answer]) == float(right)
    part = judged(text, answer, partial="leading")
    assert 0 <= part <= 1
    assert (part == 1) == right
    assert judged(f"so\n{answer}", answer, part="last_line") == 1
    assert judged(answer.upper(), answer) == 1


@pytest.mark.parametrize("answer", [None, [], [1], 3, ["a", None], {"a": "b"}])
def test_without_accepted_answers(answer: Any) -> None:
    with pytest.raises(ValueError, match="match needs the column `answer`"):
        Match().check({"answer": answer})


def test_an_answer_without_words() -> None:
    with pytest.raises(ValueError, match="needs an `answer` with a word in it"):
        Match().check({"answer": ["a", " . "]})


def test_a_list_of_answers_gets_to_the_reward(tmp_path: Path) -> None:
    """From a row, in a file or not, by way of what a batch carries of it."""
    row = {"prompt": "Which sea?", "answer": SEA}
    file = tmp_path / "check.jsonl"
    file.write_text(json.dumps(row) + "\n")
    stream = Stream(file, name="seas", kind="check")
    read = next(iter(raw_rows(stream))).columns
    for found in (row, read):
        record = record_of(found, stream, "row 1")
        about = ProblemFacts("Which sea?", (), record.facts)
        assert ProblemFacts.load(about.dump()).facts == {"answer": SEA}
    (reward,) = Match()([Answer("Which sea?", " red  sea", record.facts)])  # in a worker
    assert reward == 1.0
    Match().close()
