"""Checkers: the authors' rules on their golden vectors, ours on right answers and on cheats."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tiny import REAL_DATA

from onestage.rollout import rewards as registry
from onestage.rollout.rewards import Answer, Failure, make
from onestage.rollout.rewards._checker import Checker, NotJudged
from onestage.rollout.rewards.countdown import Countdown
from onestage.rollout.rewards.gsm8k import GSM8K
from onestage.rollout.rewards.knights_knaves import KnightsKnaves

PROMPT = (
    "A conversation.\nUser: so? for example <answer> 1 </answer>.\nAssistant: Let me.\n<think> "
)


def prompt_of(response: str) -> str:
    """One that opens the thoughts, for a response that ends them; what never ends them is a draft."""
    return PROMPT if "</think>" in response else PROMPT.removesuffix("<think> ")


COUNTDOWN = {"nums": [44, 19, 35], "target": 98}


def judged(name: str, response: str, facts: dict[str, Any], **options: Any) -> float:
    checker = make({"name": name, **options})
    assert isinstance(checker, Checker)
    return checker.judge(Answer(prompt_of(response), response, facts))


def tagged(text: str) -> str:
    return f"so </think>\n<answer> {text} </answer>"


# Countdown.


@pytest.mark.parametrize(
    ("response", "reward"),
    [
        (tagged("44 + (19 + 35)"), 1.0),
        (tagged("44 + 19"), 0.1),
        (tagged("44 + 19 - 35"), 0.1),
        (tagged("44 + (19 + 35) = 98"), 0.1),
        (tagged("44 + \n(19 + 35)"), 0.0),
        (tagged("44 + (19 + 35)") + "\nso", 0.0),
        (tagged("44 + (19 + 35)") + "\n", 0.0),
        (tagged("44 + (19 + 35)") + " so", 1.0),
        (tagged("44 + (19 + 35)") + "<|endoftext|>", 1.0),
        (tagged("44") + " <answer> 44 + 19 + 35 </answer>", 1.0),
        (tagged("44 + 19 + 35") + " <answer> 44 </answer>", 0.1),
        (tagged("44 + 19 + 35 + x"), 0.1),
        (tagged(""), 0.1),
        ("44 + 19 + 35", 0.0),
    ],
)
def test_countdown_by_the_authors_rules(response: str, reward: float) -> None:
    assert judged("countdown", response, COUNTDOWN, rules="authors") == reward


@pytest.mark.parametrize(
    ("equation", "nums", "target", "reward"),
    [
        ("2 ** 3", [2, 3], 8, 1.0),
        ("7 // 2", [7, 2], 3, 1.0),
        ("-7 // 2", [7, 2], -4, 1.0),
        ("-2 ** 2", [2, 2], -4, 1.0),
        ("2 ** -1 * 8", [2, 1, 8], 4, 1.0),
        ("2 ** 3 ** 2", [2, 3, 2], 512, 1.0),
        ("1.5 * 4", [1, 5, 4], 6, 1.0),  # digits are the numbers, wherever they stand
        ("1 / 3 * 3", [1, 3, 3], 1, 1.0),
        ("+5 - -3", [5, 3], 8, 1.0),
        ("(8) (2)", [8, 2], 16, 0.1),
        ("07 + 1", [7, 1], 8, 0.1),
        ("9 ** 9 ** 9", [9, 9, 9], 1, 0.1),
        ("1 / 0", [1, 0], 1, 0.1),
    ],
)
def test_the_authors_arithmetic_is_pythons(
    equation: str, nums: list[int], target: int, reward: float
) -> None:
    facts = {"nums": nums, "target": target}
    assert judged("countdown", tagged(equation), facts, rules="authors") == reward


def test_the_authors_rules_need_their_header() -> None:
    checker = make({"name": "countdown", "rules": "authors"})
    right = "<answer> 44 + 19 + 35 </answer>"
    assert isinstance(checker, Checker)
    assert checker.judge(Answer("Question: ", right, COUNTDOWN)) == 0.0
    assert checker.judge(Answer("<|im_start|>assistant\n", right, COUNTDOWN)) == 1.0
    assert (
        checker.judge(Answer("Assistant:", "+ 35 </answer>", COUNTDOWN, "<answer> 44 + 19 ")) == 1.0
    )


@pytest.mark.parametrize(
    ("response", "reward"),
    [
        (tagged("44 + (19 + 35)"), 1.0),
        (tagged("44 + (19 + 35) = 98"), 1.0),
        (tagged("44 + \n(19 + 35)\n"), 1.0),
        (tagged("44 + (19 + 35)") + "\nThat is it.", 1.0),
        (tagged("44") + " or <answer>35 + 19 + 44</answer>", 1.0),
        (tagged("44 + 19 + 35") + " <answer> and", 1.0),
        (tagged("44 − -(19 + 35)"), 1.0),  # noqa: RUF001
        (tagged("44 + 19 + 35") + tagged("44 + 19"), 0.1),
        (tagged("44 + (19 + 35) = 97"), 0.1),
        (tagged("98 = 44 + 19 + 35"), 1.0),
        (tagged("44 + 19 + 35 + 35 - 35"), 0.1),
        (tagged("44 + 19 + 35 + 0"), 0.1),
        (tagged("98"), 0.1),
        (tagged("44 / (19 - 19) + 35"), 0.1),
        (tagged("44 + 19 + 35 = 98 = 98"), 0.0),
        (tagged("44 + 19 + 35 ="), 0.0),
        (tagged("44 ** 19"), 0.0),
        (tagged("44 // 19"), 0.0),
        (tagged("44 + 19 + 35 apples"), 0.0),
        (tagged("4419 35"), 0.0),
        (tagged(""), 0.0),
        ("44 + 19 + 35", 0.0),
        ("<answer> 44 + 19 + 35", 0.0),
        ("</answer> 44 + 19 + 35 <answer>", 0.0),
    ],
)
def test_countdown_by_our_rules(response: str, reward: float) -> None:
    assert judged("countdown", response, COUNTDOWN) == reward


def test_countdown_is_exact() -> None:
    facts = {"numbers": [1, 3, 3], "target": 1}
    assert judged("countdown", tagged("1 / 3 * 3"), facts) == 1.0
    nearly = {"nums": [10**9, 10**9 + 1], "target": 1}
    assert judged("countdown", tagged(f"{10**9 + 1} / {10**9}"), nearly) == 0.1
    assert judged("countdown", tagged(f"{10**9 + 1} / {10**9}"), nearly, rules="authors") == 1.0
    assert judged("countdown", tagged("44 + 19"), COUNTDOWN, format_reward=0.3) == 0.3


@pytest.mark.parametrize(
    "facts", [{}, {"nums": [1]}, {"nums": "12", "target": 3}, {"nums": [1.5], "target": 2}]
)
def test_a_record_without_the_numbers_is_refused(facts: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="countdown needs the columns `nums`"):
        make("countdown").check(facts)


@pytest.mark.real_data
def test_all_real_solutions_are_right() -> None:
    file = REAL_DATA / "countdown.train.jsonl.gz"
    if not file.exists():
        pytest.skip("no real data")
    ours, authors = make("countdown"), make({"name": "countdown", "rules": "authors"})
    answers = []
    with gzip.open(file, "rt") as lines:
        for line in lines:
            row = json.loads(line)
            final = row["hint"][-1].removeprefix("Therefore, the final equation is ")
            tail = f" </think>\n<answer> {final} </answer>"
            answers.append(Answer(PROMPT, row["hint"][-1] + tail, row, "".join(row["hint"][:-1])))
    assert len(answers) == 4000
    assert ours(answers) == authors(answers) == [1.0] * 4000
    wrong = [
        Answer(a.prompt, a.completion, {**a.facts, "target": a.facts["target"] + 1}, a.hint)
        for a in answers
    ]
    assert ours(wrong) == [0.1] * 4000


@pytest.mark.parametrize("template", ["tinyzero", "short"])
def test_generated_solutions_are_right(template: Any) -> None:
    rows = {
        "countdown": list(Countdown.rows(100, template=template)),
        "knights_knaves": list(KnightsKnaves.rows(60, template=template)),
    }
    for name, problems in rows.items():
        for row in problems:
            checker = make(name)
            checker.check(row)
            assert isinstance(checker, Checker)
            assert checker.judge(Answer(row["prompt"], row["completion"], row)) == 1.0
            authors = make({"name": name, "rules": "authors"})
            assert isinstance(authors, Checker)
            as_theirs = {**row, "solution": row.get("truth")}
            reward = authors.judge(Answer(row["prompt"], row["completion"], as_theirs))
            assert reward == (1.0 if template == "tinyzero" else 0.0)


# Knights and knaves.

PEOPLE = {"names": ["Zoey", "Oliver", "Mia"], "truth": [True, False, True]}
RIGHT = "(1) Zoey is a knight\n(2) Oliver is a knave\n(3) Mia is a knight"


@pytest.mark.parametrize(
    ("response", "ours", "authors"),
    [
        (tagged(RIGHT), 1.0, 1.0),
        (tagged(RIGHT) + "\nDone.", 1.0, 1.0),
        (tagged("Mia is a KNIGHT, zoey is a knight and Oliver is a knave."), 1.0, 1.0),
        (tagged("Zoey: knight; Oliver: knave; Mia: knight"), 1.0, 0.1),
        (
            tagged("- **Zoey** is a knight\n- **Oliver** is a knave\n- **Mia** is a knight"),
            1.0,
            0.1,
        ),
        (tagged(RIGHT.replace("knave", "knight")), 0.1, 0.1),
        (tagged("Zoey is a knight\nOliver is a knave"), 0.1, 0.1),
        (tagged(RIGHT + "\nMia is a knave"), 0.1, 0.1),
        (tagged(RIGHT + "\nMia is a knight"), 0.1, 0.1),
        (tagged(RIGHT.replace("(3) Mia", "(3) Zoey")), 0.1, 0.1),
        (tagged(RIGHT.replace("Mia", "Liam")), 0.1, 0.1),
        (tagged(RIGHT.replace("knave", "knave (liar)")), 1.0, 1.0),
        (tagged(RIGHT.replace("knight", "knight (liar)")), 0.0, 1.0),
        (tagged("I do not think that " + RIGHT), 0.0, 1.0),
        (tagged(RIGHT.replace("is a knave", "is not a knight")), 0.0, 0.1),
        (tagged(RIGHT + " or not"), 0.0, 1.0),
        (tagged("no idea"), 0.0, 0.1),
        (tagged(""), 0.0, 0.0),
        (RIGHT, 0.0, 0.0),
        (tagged(RIGHT) + tagged("no"), 0.0, 0.1),
    ],
)
def test_knights_and_knaves(response: str, ours: float, authors: float) -> None:
    assert judged("knights_knaves", response, PEOPLE) == ours
    assert judged("knights_knaves", response, PEOPLE, rules="authors") == authors


def test_the_authors_columns_are_read() -> None:
    facts: dict[str, Any] = {"names": ["A", "B"], "solution": [True, False]}
    for rules in ("exact", "authors"):
        told = {"solution_text_format": RIGHT}
        assert judged("knights_knaves", tagged(RIGHT), told, rules=rules) == 1.0
    assert judged("knights_knaves", tagged("A is a knight, B is a knave"), facts) == 1.0
    for wrong in (
        {},
        {"names": ["A"], "truth": [True, False]},
        {"names": ["A", "a"], "truth": [1, 0]},
    ):
        with pytest.raises(ValueError, match="knights_knaves needs the columns `names`"):
            make("knights_knaves").check(wrong)


# Mathematics.


@pytest.mark.parametrize(
    ("gold", "answer", "reward"),
    [
        ("\\frac{1}{2}", "0.5", 1.0),
        ("\\frac{1}{2}", "1/2", 1.0),
        ("0.5", "\\frac12", 1.0),
        ("\\sqrt{3}", "\\sqrt3", 1.0),
        ("5", "x = 5", 1.0),
        ("8000", "\\boxed{8000}", 0.1),
        ("8000", "8,000", 0.1),
        ("12", "12.0", 0.1),
        ("12", "$12$", 0.1),
        ("10", "10 \\text{ cm}", 1.0),
        ("90", "90^\\circ", 1.0),
        ("x/2", "x/2", 1.0),
        ("0.5", ".5", 1.0),
        ("a=.5", "0.5", 0.1),
        ("5", "xy = 5", 0.1),
        ("(1,2)", "\\left(1, 2\\right)", 1.0),
        ("\\frac{a}{b}", "\\dfrac ab", 1.0),
        ("\\frac{1}{72}", "\\tfrac1{72}", 1.0),
        ("50", "50\\%", 1.0),
        ("1{,}000", "1000", 0.1),
        ("\\frac", "\\frac", 1.0),
        ("01/2", "1/2", 0.1),
        ("12", "", 0.1),
    ],
)
def test_mathematics_by_the_authors_rules(gold: str, answer: str, reward: float) -> None:
    assert judged("math", tagged(answer), {"target": gold}, rules="authors") == reward
    assert judged("math", tagged(answer) + "\n", {"target": gold}, rules="authors") == 0.0


@pytest.mark.parametrize(
    ("gold", "answer", "reward"),
    [
        ("5", "5", 1.0),
        ("5", "$5$.", 1.0),
        ("5", "The answer is 5.", 1.0),
        ("5", "x = 5", 1.0),
        ("5", "f(x) = 5", 1.0),
        ("8000", "8,000", 1.0),
        ("12", "12.0", 1.0),
        ("\\frac{1}{2}", "0.5", 1.0),
        ("x^2+2x+1", "(x+1)^2", 1.0),
        ("2\\sqrt{3}", "\\sqrt{12}", 1.0),
        ("1,2", "2, 1", 1.0),
        ("[1,2)", "[1, 2)", 1.0),
        ("\\text{east}", "east", 1.0),
        ("10", "10\\text{ cm}", 1.0),
        ("144", "2^4 \\cdot 3^2", 1.0),
        ("2^4 \\cdot 3^2", "144", 1.0),
        ("20", "20\\%", 1.0),
        ("20\\%", "20", 1.0),
        ("20\\%", "0.2", 1.0),
        ("37.5", "37.5 percent", 1.0),
        ("20", "0.2", 0.1),
        ("20", "21\\%", 0.1),
        # letters side by side are factors, and words and units are none
        ("6ab", "6", 0.1),
        ("6", "6ab", 0.1),
        ("2xy", "2", 0.1),
        ("2xy", "2yx", 1.0),
        ("16xyz", "16", 0.1),
        ("mx + b", "b + mx", 1.0),
        ("a^2+2ab+b^2", "(a+b)^2", 1.0),
        ("ab^2", "b^2a", 1.0),
        ("\\frac{ab}{c}", "ab/c", 1.0),
        ("-ab", "ab", 0.1),
        ("xy", "x \\cdot y", 1.0),
        ("18", "18cm", 1.0),
        ("18", "18 oz", 1.0),
        ("18", "18 cats", 1.0),
        # one answer, and the right one
        ("5", "4", 0.1),
        ("5", "4 = 5", 0.1),
        ("5", "x = 4 = 5", 0.1),
        ("5", "5 = 6", 0.1),
        ("5", "3, 5", 0.1),
        ("5", "3 or 5", 0.1),
        ("5", "5 \\text{ or } 6", 0.1),
        ("5", "1, 2, 3, 4, 5, 6, 7", 0.1),
        ("5", "a = 5, b = 6", 0.1),
        ("5", "\\boxed{5} \\boxed{6}", 0.1),
        ("5", "x < 6", 0.1),
        ("1,2", "1, 2, 3", 0.1),
        ("1,2", "1", 0.1),
        ("(1,2)", "(2,1)", 0.1),
        ("[1,2)", "(1,2)", 0.1),
        # nothing to read
        ("5", "", 0.0),
        ("5", "3} and {5", 0.0),
        ("5", "9^{9^{9^{9}}}", 0.0),
        ("5", "99999!", 0.0),
        ("5", "5" + " " * 2000 + "5", 0.0),
    ],
)
def test_mathematics_by_our_rules(gold: str, answer: str, reward: float) -> None:
    assert judged("math", tagged(answer), {"answer": gold}) == reward


@pytest.mark.parametrize(
    ("response", "reward"),
    [
        ("so $\\boxed{5}$.", 1.0),
        ("\\boxed{4}, no, \\boxed{5}", 1.0),
        ("\\boxed{5}, no, \\boxed{4}", 0.1),
        ("\\boxed{5}, no, \\boxed{4", 0.0),
        (tagged("so it is \\boxed{5}"), 1.0),
        (tagged("4") + " \\boxed{5}", 1.0),
        ("\\boxed{4} " + tagged("5"), 1.0),
        ("5", 0.0),
    ],
)
def test_where_the_final_answer_stands(response: str, reward: float) -> None:
    assert judged("math", response, {"answer": "5"}) == reward


def test_the_last_line_is_read_on_demand() -> None:
    assert judged("math", "first 4\nThe answer is 5\n", {"answer": 5}, final="last_line") == 1.0
    assert judged("math", "first 5\n4", {"answer": 5}, final="last_line") == 0.1
    assert judged("math", "5\n\\boxed{4}\n5", {"answer": 5}, final="last_line") == 0.1
    with pytest.raises(ValueError, match="math needs the column `answer`"):
        make("math").check({"answer": " "})


# GSM8K.


@pytest.mark.parametrize(
    ("answer", "ours", "authors"),
    [
        ("18", 1.0, 1.0),
        ("018", 1.0, 1.0),
        ("18.0", 1.0, 1.0),
        ("$18", 1.0, 0.1),
        ("\\$18.00", 1.0, 0.1),
        ("18 eggs", 1.0, 0.1),
        ("18\\text{ eggs}", 1.0, 0.1),
        ("x = 18", 1.0, 0.1),
        ("36/2", 1.0, 0.1),
        ("18.", 1.0, 1.0),
        ("1.8e1", 0.1, 1.0),
        ("-18", 0.1, 0.1),
        ("- 18", 0.1, 0.1),
        ("-(18)", 0.1, 0.1),
        ("18 or 20", 0.1, 0.1),
        ("18 million", 0.1, 0.1),
        ("18k", 0.1, 0.1),
        ("18^2", 0.1, 0.1),
        ("18²", 0.1, 0.1),
        ("\\sqrt{18}", 0.1, 0.1),
        ("17 + 1", 0.1, 0.1),
        ("1,8", 0.1, 0.1),
        ("nan", 0.0, 0.1),
        ("eighteen", 0.0, 0.1),
        ("", 0.0, 0.1),
    ],
)
def test_gsm8k(answer: str, ours: float, authors: float) -> None:
    facts = {"answer": "She has 9 * 2 = <<9*2=18>>18.\n#### 18"}
    assert judged("gsm8k", tagged(answer), facts) == ours
    assert judged("gsm8k", tagged(answer), facts, rules="authors") == authors
    assert judged("gsm8k", f"so \n#### {answer}\n", facts) == ours
    assert judged("gsm8k", f"so \\boxed{{{answer}}} then", facts) == ours
    assert judged("gsm8k", f"so \n#### {answer}\n", facts, rules="authors") == 0.0


def test_a_no_of_the_line_above_denies_nothing() -> None:
    facts = {"answer": "#### 18"}
    assert judged("gsm8k", "Are there 20? No\n#### 18", facts) == 1.0
    with pytest.raises(NotJudged, match="is denied"):
        judged("gsm8k", "There are no \\boxed{18}", facts)


def test_letters_in_another_order_are_not_judged() -> None:
    """A product, or a word: nobody said."""
    with pytest.raises(NotJudged, match="may or may not mean"):
        judged("math", tagged("yx"), {"answer": "xy"})


def test_large_numbers_of_gsm8k() -> None:
    facts = {"target": "1,450,000"}
    assert judged("gsm8k", tagged("1,450,000"), facts) == 1.0
    assert judged("gsm8k", tagged("1450000"), facts) == 1.0
    assert judged("gsm8k", tagged("1,450,000"), facts, rules="authors") == 0.1
    assert judged("gsm8k", tagged("025"), {"answer": 25}, rules="authors") == 1.0
    assert judged("gsm8k", tagged("0.1"), {"answer": 0.1}) == 1.0
    for wrong in ({}, {"answer": "1 or 2"}, {"answer": True}, {"answer": "#### "}):
        with pytest.raises(ValueError, match="gsm8k needs the column `answer`"):
            make("gsm8k").check(wrong)


@pytest.mark.real_data
def test_all_of_gsm8k_is_right() -> None:
    file = REAL_DATA / "gsm8k.test.jsonl.gz"
    if not file.exists():
        pytest.skip("no real data")
    with gzip.open(file, "rt") as lines:
        rows = [json.loads(line) for line in lines]
    for rules in ("number", "authors"):
        checker = make({"name": "gsm8k", "rules": rules})
        answers = [
            Answer(problem["prompt"], problem["completion"], {"answer": row["answer"]})
            for row, problem in zip(rows, GSM8K.rows(rows), strict=True)
        ]
        assert checker(answers) == [1.0] * 1319
    raw = [Answer("", row["answer"], row) for row in rows]
    assert make("gsm8k")(raw) == [1.0] * 1319


# Hints.


@pytest.mark.parametrize(
    ("name", "facts", "hint", "completion", "reward"),
    [
        ("math", {"answer": "5"}, "so \\boxed{5}", "", 0.0),
        ("math", {"answer": "5"}, "so \\boxed{5}.", " </think> done", 0.0),
        ("math", {"answer": "5"}, "so \\boxed{5}", tagged("5"), 1.0),
        ("math", {"answer": "5"}, "so \\boxed{5}", tagged("4"), 0.1),
        ("math", {"answer": "5"}, "so \\boxed{", "5}", 1.0),
        ("math", {"answer": "1/2"}, "so \\boxed{1/2}.", " \\boxed{0.5}", 1.0),
        ("gsm8k", {"answer": "5"}, "so\n#### 5", "", 0.0),
        ("gsm8k", {"answer": "5"}, "so\n#### 5\n", "done", 0.0),
        ("gsm8k", {"answer": "5"}, "so\n####  5\n", tagged("5"), 1.0),
        ("gsm8k", {"answer": "5"}, "so\n#### ", "5", 1.0),
        ("gsm8k", {"answer": "15"}, "so\n#### 1", "5", 1.0),
        ("gsm8k", {"answer": "5"}, "so \\boxed{5}", "", 0.0),
        ("countdown", COUNTDOWN, tagged("44 + 19 + 35"), " so", 0.0),
        ("knights_knaves", {"names": ["A"], "truth": [True]}, tagged("A is a knight"), "", 0.0),
    ],
)
def test_an_answer_that_was_given_is_not_the_models(
    name: str, facts: dict[str, Any], hint: str, completion: str, reward: float
) -> None:
    checker = make(name)
    assert isinstance(checker, Checker)
    assert checker.judge(Answer(prompt_of(hint + completion), completion, facts, hint)) == reward


def test_a_last_line_that_was_given_is_no_answer() -> None:
    checker = make({"name": "math", "final": "last_line"})
    assert isinstance(checker, Checker)
    assert checker.judge(Answer("", "", {"answer": "5"}, "so\n5")) == 0.0
    assert checker.judge(Answer("", "5", {"answer": "15"}, "so\n1")) == 1.0


# Format and length.


@pytest.mark.parametrize(
    ("prompt", "response", "good"),
    [
        ("", "<think>a</think>\n<answer>b</answer>", True),
        ("so <think> ", "a</think> <answer> b </answer>\n", True),
        ("so <think> ", "<think>a</think><answer>b</answer>", False),
        ("", "a</think><answer>b</answer>", False),
        ("", "<think>a</think> so <answer>b</answer>", False),
        ("", "<think>a</think><answer>b</answer> so", False),
        ("", "<think>a</think><answer> </answer>", False),
        ("", "<answer>b</answer><think>a</think>", False),
        ("", "<think>a</think><answer>b</answer><answer>b</answer>", False),
        ("", "", False),
    ],
)
def test_the_shape_of_thoughts_and_answer(prompt: str, response: str, good: bool) -> None:
    checker = make("format")
    assert isinstance(checker, Checker)
    assert checker.judge(Answer(prompt, response)) == float(good)


def test_a_pattern() -> None:
    options: dict[str, Any] = {"shape": "pattern", "pattern": "a.c", "right": 0.2, "wrong": -0.1}
    assert judged("format", "xa\ncx", {}, **options) == 0.2
    assert judged("format", "xa\ncx", {}, match="full", **options) == -0.1
    assert judged("format", "a\nc", {}, match="full", **options) == 0.2
    for wrong in ({"shape": "pattern"}, {"pattern": "a"}, {"shape": "pattern", "pattern": "("}):
        with pytest.raises(ValueError, match="pattern"):
            make({"name": "format", **wrong})


def test_a_pattern_that_never_ends_costs_one_answer() -> None:
    checker = make({"name": "format", "shape": "pattern", "pattern": "^(a+)+$", "deadline": 0.5})
    outcomes = checker([Answer("", text) for text in ("aaa", "a" * 40 + "!", "aab")])
    assert outcomes == [1.0, Failure("deadline", "took longer than 0.5 s"), 0.0]


@pytest.mark.parametrize(
    ("tokens", "overlong", "target"),
    [
        (0, 0.0, 0.0),
        (50, 0.0, 0.0),
        (80, 0.0, 0.0),
        (90, -0.5, 0.5),
        (100, -1.0, 1.0),
        (101, -1.0, 0.95),
    ],
)
def test_length(tokens: int, overlong: float, target: float) -> None:
    answer = Answer("", "", tokens=tokens)
    for rule, reward in (("overlong", overlong), ("target", target)):
        checker = make({"name": "length", "rule": rule, "limit": 100, "soft": 20})
        assert isinstance(checker, Checker)
        assert checker.judge(answer) == pytest.approx(reward)
    for wrong in ({"limit": 0}, {"limit": 10, "soft": 11}):
        with pytest.raises(ValueError, match="limit"):
            make({"name": "length", **wrong})


@given(st.integers(1, 1000), st.integers(1, 1000), st.integers(0, 3000))
def test_overlong_is_the_papers_equation(limit: int, soft: int, tokens: int) -> None:
    soft = min(soft, limit)
    checker = make({"name": "length", "limit": limit, "soft": soft})
    assert isinstance(checker, Checker)
    if tokens <= limit - soft:
        expected = 0.0
    elif tokens <= limit:
        expected = ((limit - soft) - tokens) / soft
    else:
        expected = -1.0
    assert checker.judge(Answer("", "", tokens=tokens)) == expected


# Functions.

FUNCTIONS = """
import os, time
def brief(completion, target, **others):
    return 1.0 if str(target) in completion else 0.0
def names(**everything):
    return float(len(everything))
def strict(response, hint="", unknown=7):
    return len(response) + len(hint) + unknown
def hang(completion):
    time.sleep(60)
def die(completion):
    os._exit(1)
def none(completion): pass
def places(completion, /): return 1
value = 3
"""


def test_functions_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine_rewards.py"
    file.write_text(FUNCTIONS)
    answer = Answer("p", "it is 98", {"target": 98, "nums": [1]}, "ab")
    brief = make({"name": "function", "path": f"{file}:brief"})
    assert brief([answer, Answer("p", "no", {"target": 98})]) == [1.0, 0.0]
    for name, paid in (("first", 1.0), ("second", 2.0)):  # the pool has begun, in another folder
        (tmp_path / name).mkdir()
        (tmp_path / name / "here.py").write_text(f"def pays(completion): return {paid}")
        monkeypatch.chdir(tmp_path / name)
        assert make({"name": "function", "path": "here.py:pays"})([answer]) == [paid]
    with pytest.raises(ValueError, match="brief needs target; a record has nums"):
        brief.check({"nums": [1]})
    brief.check({"target": 1})
    assert make({"name": "function", "path": f"{file}:names"})([answer]) == [9.0]
    assert make({"name": "function", "path": f"{file}:strict"})([answer]) == [10 + 2 + 7]
    with pytest.raises(ValueError, match="cannot be imported: ModuleNotFoundError"):
        make({"name": "function", "path": "mine_rewards:brief"})
    monkeypatch.syspath_prepend(str(tmp_path))
    brief.close()  # workers know the path of the time when they were started
    assert make({"name": "function", "path": "mine_rewards:brief"})([answer]) == [1.0]
    outcomes = [
        make({"name": "function", "path": f"{file}:{name}", "deadline": 0.5})([answer])[0]
        for name in ("hang", "die", "none")
    ]
    assert [o.sort for o in outcomes if isinstance(o, Failure)] == ["deadline", "crash", "value"]
    for path, message in (
        (f"{file}:breif", r"has no function 'breif'; did you mean 'brief'\?"),
        (f"{file}:value", "has no function 'value'"),
        (f"{file}:places", "completion cannot be given by name"),
        (f"{tmp_path / 'other.py'}:brief", "no such file"),
        ("brief", r"expected package\.module:function or path/to/file\.py:function"),
        ("", "expected package"),
    ):
        with pytest.raises(ValueError, match=message):
            make({"name": "function", "path": path})


# Names.


def test_every_reward_has_a_name() -> None:
    assert set(registry.names()) >= {
        *(
            "countdown",
            "format",
            "function",
            "gsm8k",
            "ifeval",
            "knights_knaves",
            "length",
            "match",
        ),
        "math",
    }
    for name in registry.names():
        registry.find(name)


def test_mistakes_are_told() -> None:
    with pytest.raises(ValueError, match="unknown reward 'countdwn'; did you mean 'countdown'"):
        make("countdwn")
    with pytest.raises(
        ValueError, match="reward countdown: unknown option 'rule'; did you mean 'rules'"
    ):
        make({"name": "countdown", "rule": "authors"})
    with pytest.raises(
        ValueError, match="reward gsm8k: rules: Input should be 'number' or 'authors'"
    ):
        make({"name": "gsm8k", "rules": "other"})
    with pytest.raises(ValueError, match="deadline must be positive"):
        make({"name": "math", "deadline": 0})


def test_rewards_by_class() -> None:
    assert registry.Countdown is Countdown
    assert registry.Checker is Checker
    answer = Answer("", "<answer> 1 + 2 </answer>", {"nums": [1, 2], "target": 3})
    assert registry.Countdown()([answer]) == [1.0]
    assert {"Countdown", "GSM8K", "RewardModel", "Answer", "Checker"} <= set(dir(registry))
    with pytest.raises(AttributeError, match="no attribute 'Cuntdown'"):
        _ = registry.Cuntdown
