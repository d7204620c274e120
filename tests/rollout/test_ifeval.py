"""IFEval's instructions: each followed and not, the levels, the loose reading, the real prompts."""

from __future__ import annotations

import gzip
import json
import sys
from typing import Any

import pytest
from support.tiny import REAL_DATA

from onestage.rollout.rewards import Answer, Failure, make
from onestage.rollout.rewards import _ifeval_arguments as arguments_of
from onestage.rollout.rewards import _ifeval_rules as instructions
from onestage.rollout.rewards._checker import Checker, NotJudged
from onestage.rollout.rewards._ifeval_language import detector

AT_LEAST, LESS = "at least", "less than"
EVERY: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    (
        "keywords:existence",
        {"keywords": ["mom", "Mother"]},
        ["My MOM is a mother.", "mom's **mother**"],
        ["my mom", "none", "moment of a smothered one"],
    ),
    (
        "keywords:frequency",
        {"keyword": "war", "frequency": 2, "relation": AT_LEAST},
        ["War and war"],
        ["war", "peace", "warwar", "forward, toward war"],
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
        ["one two, three four", "it's 3.5 miles—far"],
        ["one two three", "don't you go", "* - ... !!!"],
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
        ["Section 1\na\nSection 2\nb", "**Section1**\nSection2\nSection3"],
        ["Section 1", "SECTION 1 SECTION 2", "Section A Section B"],
    ),
    (
        "detectable_format:json_format",
        {},
        ['{"a": [1, 2]}', "```json\n[1]\n```", "```\n[3]\n```"],
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
        ["WE ARE here", "NASA-X and ESA", "COVID-19, U.S."],
        ["I am", "none", "Berlin Paris"],
    ),
    ("punctuation:no_comma", {}, ["a; b"], ["a, b"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "good", "bad"), EVERY)
def test_every_instruction(
    name: str, arguments: dict[str, Any], good: list[str], bad: list[str]
) -> None:
    arguments_of.check([(name, arguments)])
    for text in good:
        assert instructions.followed(name, arguments, text) is True, text
    for text in [*bad, "", " \n"]:
        assert not instructions.followed(name, arguments, text), text


UNCLEAR: list[tuple[str, dict[str, Any], list[str]]] = [
    ("keywords:existence", {"keywords": ["mom"]}, ["moms", "mom-and-pop"]),
    ("keywords:frequency", {"keyword": "war", "frequency": 2, "relation": LESS}, ["war, wars"]),
    ("keywords:forbidden_words", {"forbidden_words": ["so what"]}, ["so  what"]),
    (
        "keywords:letter_frequency",
        {"letter": "e", "let_frequency": 2, "let_relation": LESS},
        ["\u00e9 e"],
    ),
    ("language:response_language", {"language": "de"}, ["Ok", "So:\nhere it is\nDas ist gut so."]),
    ("length_constraints:number_words", {"num_words": 4, "relation": AT_LEAST}, ["one two three-four"]),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 3, "relation": AT_LEAST},
        ["no\nend\nno", "# A Title\n\nOne. Two.", "Mr. J. Smith came. He left."],
    ),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, ["a\n- - -\nb", "a***b"]),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "So"},
        ["a\n\n1. so", "a\n\n---\n\nso"],
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, ["[a] [a]", "[a](b) [c]"]),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, ["The P.S. is short", "a\nP.S."]),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, ["- a\n  - b", "+ a\n+ b", "- a\n-"]),
    ("detectable_format:constrained_response", {}, ["my answer is yes"]),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, ["_a_ *b*", "*a **b** c*"]),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        ["Section1 Section2 Section3", "Section A\nSection B", "Section 1\nSection 1"],
    ),
    ("detectable_format:json_format", {}, ["```\n3\n```", '```json\n{"a": 1}']),
    ("detectable_format:title", {}, ["x << y >> z", "<<a\nb>>"]),
    ("combination:two_responses", {}, ["a.\n******\nA", "a\n*******\nb"]),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, ["Say it.", '"Say it." So.']),
    ("startend:end_checker", {"end_phrase": "It is."}, ["so it is!", "it is. \U0001f642"]),
    ("startend:quotation", {}, ['"a" and "b"', "\u201ca\u201d", '**"a"**']),
    ("change_case:english_capital", {}, ["SUNSHINE BRIGHTENS MORNING SKIES, BIRDS SING SWEETLY"]),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": AT_LEAST},
        ["I AM here", "a TOP-NOTCH one"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "texts"), UNCLEAR)
def test_where_readers_would_differ(name: str, arguments: dict[str, Any], texts: list[str]) -> None:
    for text in texts:
        assert instructions.followed(name, arguments, text) is None, text


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("I live in the U.S. It is big. Dr. No came at 5 p.m. with me.", 3),
        ("\u4eca\u5929\u5f88\u597d\u3002\u660e\u5929\u4e0b\u96e8\uff01\u540e\u5929\u6674\uff1f", 3),
        ("1. Eat.\n2) Sleep.\n(c) Run.\n- Rest.", 4),
        ("1. Eat. 2. Sleep. 3. Run.", 3),
        ("He got an A. She got a B. They left.", 3),
        ('"Why?" he asked. "Because!" she said.', 2),
        ("hello there. how are you? fine.", 3),
        ("See www.example.com for $3.50. Thanks...", 2),
        ("He is No. 1. No. He was.", 3),
        ("Roses are red,\nviolets are blue,\nsugar is sweet.", 1),
        ("\u0939\u093e\u0901\u0964 \u0928\u0939\u0940\u0902\u0964", 2),
    ],
)  # fmt: skip
def test_sentences_by_eye(text: str, count: int) -> None:
    name = "length_constraints:number_sentences"
    for relation, number in ((AT_LEAST, count), (LESS, count + 1)):
        asked = {"num_sentences": number, "relation": relation}
        assert instructions.followed(name, asked, text) is True
    asked = {"num_sentences": count + 1, "relation": AT_LEAST}
    assert instructions.followed(name, asked, text) is False


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
    unclear = [each for each in rewards if isinstance(each, Failure)]
    assert {each.sort for each in unclear} <= {"undecided"}
    assert len(unclear) < 10
    assert {each for each in rewards if not isinstance(each, Failure)} == {0.0, 1.0}


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


def test_what_is_unclear_is_not_judged() -> None:
    """Unless it does not matter: something else is not followed."""
    with pytest.raises(NotJudged, match="startend:end_checker"):
        reward("So. Bye!")
    assert reward("So, bye!") == 0.0
    with pytest.raises(NotJudged):
        reward("So, bye!", level="instruction")
    [failure] = make("ifeval")([Answer("", "So. Bye!", FACTS)])
    assert isinstance(failure, Failure)
    assert failure.sort == "undecided"


def test_thoughts_are_drafts() -> None:
    assert reward("<think>a, b, c</think>So. Bye.") == 1.0
    assert reward("<think>So. Bye.") == 0.0
    assert reward("So. **Bye.**<|im_end|>") == 1.0


def test_the_loose_reading() -> None:
    """Without the first line, the last line, or the asterisks."""
    for text in (
        "Sure, here:\nSo. Bye.",
        "So. Bye.\nAnything else?",
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
    detector.cache_clear()
    with pytest.raises(ValueError, match=r"pip install 'onestage\[languages\]'"):
        arguments_of.check([("language:response_language", {"language": "de"})])
    detector.cache_clear()


WORDS, SENTENCES = "length_constraints:number_words", "length_constraints:number_sentences"


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ([(WORDS, {"num_words": -1, "relation": AT_LEAST})], "satisfy num_words -1"),
        ([(WORDS, {"num_words": 1, "relation": LESS})], "num_words less than 1"),
        ([(WORDS, {"num_words": float("inf"), "relation": LESS})], "must be int, got inf"),
        ([(WORDS, {"num_words": True, "relation": LESS})], "must be int, got True"),
        ([("length_constraints:number_paragraphs", {"num_paragraphs": 0})], "num_paragraphs 0"),
        ([("keywords:existence", {"keywords": ["a", " "]})], "keywords must be list"),
        ([("keywords:letter_frequency", {"letter": "ab", "let_frequency": 1, "let_relation": LESS})],
         "letter 'ab'"),
        ([("language:response_language", {"language": "xx"})], "no language 'xx' is known"),
        ([("length_constraints:nth_paragraph_first_word",
           {"num_paragraphs": 2, "nth_paragraph": 3, "first_word": "a"})], "nth_paragraph 3 of 2"),
        ([(SENTENCES, {"num_sentences": 3, "relation": AT_LEAST}),
          (SENTENCES, {"num_sentences": 2, "relation": LESS})], "at least 3 and at most 1"),
        ([("keywords:existence", {"keywords": ["Cat food"]}),
          ("keywords:forbidden_words", {"forbidden_words": ["cat"]})], "'cat' is forbidden"),
        ([("keywords:existence", {"keywords": ["Cat"]}),
          ("keywords:frequency", {"keyword": "cat", "frequency": 1, "relation": LESS})],
         "of 'cat' at least 1 and at most 0"),
        ([("startend:end_checker", {"end_phrase": "So, bye."}), ("punctuation:no_comma", {})],
         "no comma, and 'So, bye.'"),
        ([("change_case:english_capital", {}), ("change_case:english_lowercase", {})], "small letters"),
        ([("change_case:english_capital", {}), ("language:response_language", {"language": "de"})],
         "in the language 'de'"),
        ([("detectable_format:number_bullet_lists", {"num_bullets": 2}),
          ("detectable_format:number_bullet_lists", {"num_bullets": 3})], "at least 3 and at most 2"),
    ],
)  # fmt: skip
def test_what_nobody_can_satisfy_is_refused(
    asked: list[tuple[str, dict[str, Any]]], told: str
) -> None:
    facts = {
        "instruction_id_list": [name for name, _ in asked],
        "kwargs": [each for _, each in asked],
    }
    with pytest.raises(ValueError, match=told):
        make("ifeval").check(facts)


def test_what_somebody_can_satisfy_is_not() -> None:
    asked = [
        ("keywords:frequency", {"keyword": "cat", "frequency": 1, "relation": LESS}),
        ("keywords:forbidden_words", {"forbidden_words": ["cat", "dog"]}),
        ("keywords:existence", {"keywords": ["cats", "doghouse"]}),
        (SENTENCES, {"num_sentences": 3.0, "relation": AT_LEAST}),
        (SENTENCES, {"num_sentences": 4, "relation": LESS}),
        ("language:response_language", {"language": "zh-cn"}),
        ("detectable_format:number_bullet_lists", {"num_bullets": 0}),
    ]
    arguments_of.check(asked)


# The benchmark's own verdicts


def test_the_benchmark_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from onestage.rollout.rewards import _ifeval_benchmark as benchmark

    monkeypatch.setitem(sys.modules, "langdetect", None)
    benchmark.load.cache_clear()
    with pytest.raises(ValueError, match=r"pip install 'onestage\[eval\]'"):
        make({"name": "ifeval", "rules": "compat"}).check(FACTS)
    benchmark.load.cache_clear()
    make("ifeval").check(FACTS)


def test_the_benchmark_judges_as_it_does() -> None:
    """Where it differs from a careful reader, by its own code."""
    pytest.importorskip("lm_eval")
    pytest.importorskip("punkt")
    compat = make({"name": "ifeval", "rules": "compat"})
    cases: list[tuple[str, dict[str, Any], str, float]] = [
        ("keywords:existence", {"keywords": ["art"]}, "They start a cart.", 1.0),
        ("punctuation:no_comma", {}, "a\uff0c b", 1.0),
        ("detectable_format:number_bullet_lists", {"num_bullets": 3}, "-5 degrees.\n- a\n- b", 1.0),
        (SENTENCES, {"num_sentences": 2, "relation": LESS}, "Mr. Smith and Dr. Brown left.", 1.0),
        (SENTENCES, {"num_sentences": 2, "relation": LESS}, "He left. She left.", 0.0),
        ("change_case:capital_word_frequency",
         {"capital_frequency": 2, "capital_relation": AT_LEAST}, "I think A is fine", 1.0),
        ("startend:end_checker", {"end_phrase": "Bye."}, "So. **Bye.**", 0.0),
    ]  # fmt: skip
    rows = [{"instruction_id_list": [name], "kwargs": [each]} for name, each, _, _ in cases]
    asked = [Answer("", case[2], row) for case, row in zip(cases, rows, strict=True)]
    assert compat(asked) == [case[3] for case in cases]
    loose = make({"name": "ifeval", "rules": "compat", "reading": "loose"})
    assert loose(asked[-1:]) == [1.0]
    with pytest.raises(ValueError, match="the benchmark has no language 'zh'"):
        compat.check(
            {"instruction_id_list": ["language:response_language"], "kwargs": [{"language": "zh"}]}
        )
    # The letter # is none of its letters: it draws one, always the same.
    drawn = {
        "instruction_id_list": ["keywords:letter_frequency"],
        "kwargs": [{"letter": "#", "let_frequency": 1, "let_relation": AT_LEAST}],
    }
    texts = [Answer("", f"{letter}#", drawn) for letter in "abcdefghijklmnopqrstuvwxyz"]
    assert compat(texts) == compat(texts)
    assert sum(compat(texts)) == 1.0  # type: ignore[arg-type]
