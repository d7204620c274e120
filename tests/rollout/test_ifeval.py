"""IFEval's instructions: each followed and not, the levels, the loose reading, the real prompts."""

from __future__ import annotations

import gzip
import json
import sys
from typing import Any

import pytest
from support.tiny import REAL_DATA

from onestage.rollout.rewards import Answer, make
from onestage.rollout.rewards import _ifeval_rules as instructions
from onestage.rollout.rewards._checker import Checker

AT_LEAST, LESS = "at least", "less than"
EVERY: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    (
        "keywords:existence",
        {"keywords": ["mom", "Mother"]},
        ["My MOM is a mother.", "moms and mothers"],
        ["my mom", "none"],
    ),
    (
        "keywords:frequency",
        {"keyword": "war", "frequency": 2, "relation": AT_LEAST},
        ["War and war", "warwar"],
        ["war", "peace"],
    ),
    (
        "keywords:frequency",
        {"keyword": "c++", "frequency": 1, "relation": LESS},
        ["I like c"],
        ["I like C++"],
    ),
    (
        "keywords:forbidden_words",
        {"forbidden_words": ["rock", "war"]},
        ["rocks and warfare"],
        ["a Rock.", "rocks, war"],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "T", "let_frequency": 2, "let_relation": LESS},
        ["at", "none"],
        ["That", "tt"],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "!", "let_frequency": 2, "let_relation": AT_LEAST},
        ["a! b!"],
        ["a!"],
    ),
    (
        "language:response_language",
        {"language": "de"},
        ["Das ist ein kurzer Satz über das Wetter in Berlin, und es regnet heute sehr stark."],
        ["This is a short sentence about the weather in Berlin, and it rains a lot today."],
    ),
    (
        "length_constraints:number_words",
        {"num_words": 4, "relation": AT_LEAST},
        ["one two, three-four"],
        ["one two three"],
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 3, "relation": AT_LEAST},
        ["One. Two! Three?", "Mr. Smith came. He saw.\nHe left", 'He said "no." Then... Well.'],
        ["One. Two", "Mr. J. Smith came, e.g. today. He left.", "3.14 is pi. Yes.", "no\nend\nno"],
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": LESS},
        ["Only one."],
        ["One. Two."],
    ),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["a\n***\nb", "***\na\n***\nb\n***", "a *** b"],
        ["a\n\nb", "a\n***\n\n***\nb", "a *** b *** c"],
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "So"},
        ["a\n\nso, it is", "a\n\n\"So\" he said", "a\nb\n\nSO"],
        ["a\n\nsoon", "so\n\na", "a\n\nso\n\nb", "so", "a\n\nit"],
    ),
    (
        "detectable_content:number_placeholders",
        {"num_placeholders": 2},
        ["[name] and [address]", "[a][b][c]", "[[a] [b]"],
        ["[name]", "[name\n] [b]", "]a[ ]b["],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.S."},
        ["Hi.\nP.S. bye", "hi\np. s. x"],
        ["Hi. PS bye", "P.S"],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.P.S"},
        ["Hi.\nP.P.S. bye", "p. p. s so"],
        ["P.S. bye"],
    ),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ["* a\n* b", "so:\n  - a\n* b\n", "*a\n-b"],
        ["* a", "* a\n* b\n- c", "**a**\n**b**"],
    ),
    (
        "detectable_format:constrained_response",
        {},
        ["My answer is yes.", "So: My answer is maybe. Or not"],
        ["my answer is yes", "Yes."],
    ),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*a* and *b*", "**a b**\n*c*"],
        ["*a*", "* a\n* b", "** **"],
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        ["Section 1\na\nSection 2\nb", "Section1 Section2 Section3"],
        ["Section 1", "SECTION 1 SECTION 2", "Section A Section B"],
    ),
    (
        "detectable_format:json_format",
        {},
        ['{"a": [1, 2]}', "```json\n[1]\n```", "```\n3\n```"],
        ["{a: 1}", "so [1]", "[" * 100_000],
    ),
    ("detectable_format:title", {}, ["<<joy>>\nso", "a <<b c>>"], ["<a>", "<< >>", "<<a\nb>>", ">>a<<"]),
    (
        "combination:two_responses",
        {},
        ["a\n******\nb", "******a******b******"],
        ["a", "a ****** a", "a****** ******b", "a******b******c"],
    ),
    (
        "combination:repeat_prompt",
        {"prompt_to_repeat": "Write a poem."},
        ["Write a poem. Sea.", " write a POEM.\nSea"],
        ["Sure. Write a poem."],
    ),
    ("startend:end_checker", {"end_phrase": "It is."}, ["so it is.", '"It is."\n'], ["It is. Or not"]),
    ("startend:quotation", {}, ['"so"', ' "a "b" c"\n'], ['"', '"so', "so"]),
    ("change_case:english_capital", {}, ["ALL OF IT, 1."], ["ALL of it", "123"]),
    ("change_case:english_lowercase", {}, ["all of it, 1."], ["All of it", "123"]),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": AT_LEAST},
        ["I AM here", "NASA-X and ESA"],
        ["I am", "none", "Berlin Paris"],
    ),
    ("punctuation:no_comma", {}, ["a; b"], ["a, b"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "good", "bad"), EVERY)
def test_every_instruction(
    name: str, arguments: dict[str, Any], good: list[str], bad: list[str]
) -> None:
    instructions.check(name, arguments)
    for text in good:
        assert instructions.followed(name, arguments, text), text
    for text in [*bad, "", " \n"]:
        assert not instructions.followed(name, arguments, text), text


def test_all_instructions_of_the_data_are_known_and_tested() -> None:
    assert {name for name, *_ in EVERY} == set(instructions.RULES)
    assert len(instructions.RULES) == 25
    file = REAL_DATA / "ifeval_prompts.jsonl.gz"
    if not file.exists():
        pytest.skip("no real data")
    checker = make("ifeval")
    with gzip.open(file, "rt") as lines:
        rows = [json.loads(line) for line in lines]
    for row in rows:
        checker.check(row)
    assert {name for row in rows for name in row["instruction_id_list"]} == set(instructions.RULES)
    answers = [Answer(row["prompt"], "Some answer, in two parts.", row) for row in rows]
    rewards = checker(answers)
    assert len(rewards) == 541
    assert set(rewards) == {0.0, 1.0}


FACTS = {
    "instruction_id_list": ["punctuation:no_comma", "startend:end_checker"],
    "kwargs": [{"num_words": None}, {"end_phrase": "Bye."}],
}


def reward(response: str, **options: Any) -> float:
    checker = make({"name": "ifeval", **options})
    assert isinstance(checker, Checker)
    return checker.judge(Answer("", response, FACTS))


def test_levels() -> None:
    assert [reward(text) for text in ("So. Bye.", "So, bye.", "no")] == [1.0, 0.0, 0.0]
    share = [reward(text, level="instruction") for text in ("So. Bye.", "So, bye.", "a,")]
    assert share == [1.0, 0.5, 0.0]


def test_the_loose_reading() -> None:
    """Without the first line, the last line, or the asterisks."""
    for text in (
        "Sure, here:\nSo. Bye.",
        "So. Bye.\nAnything else?",
        "So. **Bye.**",
        "a,\nBye.\nb,",
    ):
        assert reward(text) == 0.0
        assert reward(text, reading="loose") == 1.0
    assert reward("a\nb,\nBye.", reading="loose") == 0.0
    assert reward("x" * 300_000 + " Bye.", reading="loose") == 0.0


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({}, "ifeval needs the columns `instruction_id_list` and `kwargs`"),
        ({"instruction_id_list": ["a"], "kwargs": []}, "lists of one length"),
        (
            {"instruction_id_list": ["a"], "kwargs": [{}]},
            "no instruction 'a'; known are change_case",
        ),
        (
            {"instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": "a"}]},
            "keywords must be list, got 'a'",
        ),
        (
            {
                "instruction_id_list": ["length_constraints:number_words"],
                "kwargs": [{"num_words": 3, "relation": "about"}],
            },
            "relation must be 'at least' or 'less than', got 'about'",
        ),
        (
            {"instruction_id_list": ["detectable_format:number_bullet_lists"], "kwargs": [{}]},
            "num_bullets must be int, got None",
        ),
    ],
)
def test_wrong_records(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make("ifeval").check(facts)


def test_a_missing_language_detector_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "py3langid", None)
    instructions.detector.cache_clear()
    with pytest.raises(ValueError, match=r"pip install 'onestage\[languages\]'"):
        instructions.check("language:response_language", {"language": "de"})
    instructions.detector.cache_clear()
