"""What answers are worth, against a careful reader's verdicts; and cases of our own."""

from __future__ import annotations

from typing import Any

import pytest

from bench.trust.answers import CHECKERS, FOLDER, outcomes, rows


@pytest.mark.skipif(not FOLDER.is_dir(), reason="no field data")
@pytest.mark.parametrize("name", CHECKERS)
def test_no_wrong_answer_is_paid_and_few_right_ones_are_missed(name: str) -> None:
    given = rows(name)
    found = list(zip(given, outcomes(CHECKERS[name], given), strict=True))
    # Whether 5 percent is 5, our reader left open; it is, as math-verify and MATH's own rules have it.
    open_ = [row for row in given if row["want"] == "?" and "5\\text{ percent}" in row["response"]]
    assert not [
        row for row, how in found if how == "paid" and row["want"] != 1 and row not in open_
    ]
    right = [how for row, how in found if row["want"] == 1]
    assert right.count("paid") >= 0.97 * len(right)


def math(gold: str, final: str) -> dict[str, Any]:
    return {"facts": {"answer": gold}, "response": f"so \\boxed{{{final}}}"}


PAID = [
    ("18 cm", "180\\text{ mm}"),
    ("2.5", "2\\tfrac{1}{2}"),
    ("0.1\\overline{6}", "\\frac16"),
    ("\\{1, 2\\}", "2, 1"),
    ("1500", "1.5\\text{ thousand}"),
    ("75\\%", "0.75"),
    ("75\\%", "75"),
    ("75", "75\\%"),
    ("x \\le 3", "(-\\infty, 3]"),
    ("\\sqrt{8}", "2\\sqrt{2}"),
    ("C", "\\text{(C) } 7"),
    ("90", "90\\text{ minutes}"),
    ("HTTH", "\\text{HTTH}"),
    ("3x+2", "2 + 3x"),
    ("4", "\\mathbf{4}"),
    ("\\$0.25", "25\\text{ cents}"),
    ("60\\text{ mph}", "60\\text{ miles per hour}"),
    ("25\\text{ cm}^2", "25\\text{ square cm}"),
    ("45", "45\u00b0"),
    ("2.5", "2\u00bd"),
    ("\\frac{7}{3}", "2 1/3"),
    ("602000", "6.02e5"),
    ("12.5\\%", "12\\frac12\\%"),
    ("2\\pm\\sqrt{3}", "2-\\sqrt3, 2+\\sqrt3"),
    ("(0,1)", "]0,1["),
    ("\\mathbb{R}\\setminus\\{2\\}", "(-\\infty,2)\\cup(2,\\infty)"),
    ("(3,-4)", "x=3, y=-4"),
    ("\\emptyset", "\\varnothing"),
    ("7", "\\color{red}{7}\\ \\checkmark"),
    ("7", "x = 3 + 4 = 7"),
    ("3:30\\text{ p.m.}", "3:30\\text{ PM}"),
    ("x^{10}", "x^10"),
    ("10^{-3}", "10^-3"),
    ("1024", "2^10"),
    ("60\\text{ km/h}", "60\\text{ km per hour}"),
    ("60\\text{ mph}", "60\\frac{\\text{miles}}{\\text{hour}}"),
    ("12\\text{ dollars/hour}", "12\\text{ dollars an hour}"),
]
UNPAID = [
    ("18 cm", "18\\text{ mm}"),
    ("2", "2\\frac{1}{2}"),
    ("0.16", "\\frac16"),
    ("\\{1, 2\\}", "2, 1, 1"),
    ("1.5", "1.5\\text{ thousand}"),
    ("(1, 2)", "(2, 1)"),
    ("x \\le 3", "(-\\infty, 3)"),
    ("\\sqrt{8}", "2.8284271247"),
    ("HTTH", "TTHH"),
    ("90", "1\\text{ hour }30"),
    ("4", "4\\text{ or }5"),
    ("\\frac{1}{7^{90}}", "\\frac{1}{7^{91}}"),
    ("213_4", "213_5"),
    ("12", "1 2"),
    ("\\$25", "25\\text{ cents}"),
    ("25\\text{ cm}^2", "25\\text{ cm}^3"),
    ("A", "\\text{(A) or (B)}"),
    ("7", "7\\text{ is wrong}"),
    ("60\\text{ km/h}", "60\\text{ h/km}"),
    ("60\\text{ mph}", "60\\text{ hours per mile}"),
    ("x^{10}", "x^{1}0"),
    ("x^{10}", "x^11"),
    ("7", "\\text{nicht }7"),
    ("7", "x = 3 + 5 = 7"),
    ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{vmatrix}1&2\\\\3&4\\end{vmatrix}"),
]


def test_right_means_right() -> None:
    found = outcomes({"name": "math"}, [math(*case) for case in [*PAID, *UNPAID]])
    assert found == ["paid"] * len(PAID) + ["not"] * len(UNPAID)


def test_what_cannot_be_decided_is_not_judged() -> None:
    unclear = [
        ("101_2", "101"),
        ("(1, 2)", "1, 2"),
        ("0.5", "0.5\\%"),
        ("1, 2", "\\lfloor 1.5 \\rfloor, 2"),
        ("1", "\\text{1st}"),
        ("7", "7'"),
    ]
    found = outcomes({"name": "math"}, [math(*case) for case in unclear])
    assert found == ["undecided"] * len(unclear)


@pytest.mark.parametrize("final", ["1\\,234", "\\(1\\,234\\)", "1{,}234", "1\\!234", "\\$1,234"])
def test_thousands_in_latex_are_one_number(final: str) -> None:
    row = {"facts": {"answer": "1234"}, "response": f"#### {final}"}
    assert outcomes({"name": "gsm8k"}, [row]) == ["paid"]


LADY = {"names": ["A"], "truth": [True]}
DRAFTS = [
    ("math", {"answer": "5"}, "so \\boxed{5}"),
    ("math", {"answer": "5"}, "<answer>5</answer>"),
    ("gsm8k", {"answer": "5"}, "so\n#### 5"),
    ("countdown", {"nums": [2, 3], "target": 5}, "<answer>2 + 3</answer>"),
    ("knights_knaves", LADY, "<answer>A is a knight</answer>"),
    ("match", {"answer": "five"}, "five"),
    (
        "ifeval",
        {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
        "Five it is.",
    ),
]
"""Right answers, as long as nobody is still thinking."""


@pytest.mark.parametrize(("name", "facts", "response"), DRAFTS)
def test_thoughts_that_the_prompt_opened_and_nothing_ended_are_a_draft(
    name: str, facts: dict[str, Any], response: str
) -> None:
    row = {"facts": facts, "response": response}
    unfinished = {**row, "prompt": "Q?\nAssistant: <think>\n"}
    quoted = {**row, "prompt": "What does <think> mean? Say five."}
    found = outcomes({"name": name}, [row, unfinished, quoted])
    assert found == ["paid", "not", "paid"]
    if name != "match":  # which compares all of the text, thoughts as well
        ended = {**unfinished, "response": f"so </think>\n{response}"}
        assert outcomes({"name": name}, [ended]) == ["paid"]


GSM8K_DOUBTED = [
    *(
        "not 42",
        "isn't 42",
        "it cannot be 42",
        "more than 42",
        "at least 42",
        "about 42",
        "~42",
        "42 or so",
    ),
    *(
        "minus 42",
        "half of 42",
        "square root of 42",
        "42 is the wrong answer",
        "42 (incorrect)",
        "42!",
    ),
    *(
        "nicht 42",
        "42nd",
        "42 and a half",
        "42\nWait, that is wrong. It is 43.",
        "42\n\nNo: the answer is 41.",
        "41 #### 42",
    ),
    *("40\n#### 41\n#### 42", "42\nThe answer is 43.", "42\n\\boxed{43}"),
    *(
        "42\nLet me recheck.",
        "42\nWait, let me redo it: 43. That is right.",
        "42\nLet me double-check. That is right. Wait, 43.",
        "42\nSorry, it is 43.",
        "42\nIt should be 43.",
        "42\nI made a small mistake.",
        "42\nWait, is it 42?",
        "42\nLet me recheck: it is less than 42.",
        "42\nLet me recheck: 40 + 2 = 42, which is not what was asked.",
        "42\nHmm, twice that. Half of it is 42 for each of the two.",
    ),
]
GSM8K_PAID = [
    *(
        "**42** eggs",
        "**42**.",
        "\\boxed{42}",
        "$42/hour",
        "\u20b942",
        "42\u3002",
        "She has 42 more eggs",
    ),
    *(
        "42\nThis is what was to be shown.",
        "42\nNo other number fits.",
        "42\nI made sure that none is missing.",
        "left over: 42",
        "41\nWait.\n#### 42",
        "42\nLet me double-check: 40 + 2 = 42. So that is right.",
        "42\nWait, let me recheck. Yes, that is correct.",
        "42\nSorry for the long answer.",
        "42\nLet me double-check: 40 + 2 = 42.",
        "42\nWait, per day or in all? In all, so the answer is still $42.",
        "42\nActually, we can try: 6 * 7 = 42 eggs \u2713",
        "42\nSo it should be 42.",
        "42\nI made 3 batches of 14.",
    ),
]
BOXES = [
    ("\\boxed{7} is wrong.", "undecided"),
    ("It cannot be $\\boxed{7}$.", "undecided"),
    ("The answer is \\boxed{8}, not \\boxed{7}.", "undecided"),
    ("\\boxed{7}. Wait, that's wrong, the answer is 8.", "undecided"),
    ("<answer>7</answer> Hmm, no. It should be 8.", "undecided"),
    ("\\boxed{8} or \\boxed{7}", "undecided"),
    ("\\boxed{8}, \\boxed{7}", "undecided"),
    ("<thinking>perhaps \\boxed{7}</thinking> I do not know", "not"),
    ("<reasoning>\\boxed{7}", "not"),
    ("\\boxed{8}? No, \\boxed{7}.", "paid"),
    ("There is no doubt: \\boxed{7}. No other value works.", "paid"),
    ("<thinking>\\boxed{8}</thinking> \\boxed{7}", "paid"),
    ("\\\\boxed{7}", "paid"),
    ("\\boxed{7}. This is not wrong.", "paid"),
]


def test_an_answer_that_is_denied_hedged_or_taken_back_is_not_paid() -> None:
    given = [
        {"facts": {"answer": 42}, "response": f"#### {a}"} for a in [*GSM8K_DOUBTED, *GSM8K_PAID]
    ]
    found = outcomes({"name": "gsm8k"}, given)
    assert found == ["undecided"] * len(GSM8K_DOUBTED) + ["paid"] * len(GSM8K_PAID)
    boxes = [{"facts": {"answer": "7"}, "response": response} for response, _ in BOXES]
    assert outcomes({"name": "math"}, boxes) == [wanted for _, wanted in BOXES]


def test_coordinates_under_other_names_are_not_guessed() -> None:
    given = [
        math("(1,2)", "(y,x) = (1,2)"),
        math("(y,x)=(1,2)", "(x,y)=(1,2)"),
        math("(1,2)", "(y,x) = (2,1)"),
        math("(1,2)", "(x,y) = (1,2)"),
        math("(m,b)=(1,2)", "(m, b) = (1, 2)"),
    ]
    assert outcomes({"name": "math"}, given) == [*["undecided"] * 2, "not", "paid", "paid"]


def test_names_tables_and_signs_are_read_as_they_are_written() -> None:
    roles = [
        (["Jos\u00e9", "St. John"], "Jose\u0301 is a knight and St. John is a knave"),
        (["Al", "Bo"], "- Al - knight\n- Bo \u2014 a knave"),
        (["Al", "Bo"], "Al -> knight, Bo \u2192 knave"),
        (["Al", "Bo"], "| Name | Role |\n|---|---|\n| Al | knight |\n| Bo | knave |"),
    ]
    rows = [
        {"facts": {"names": names, "truth": [True, False]}, "response": f"<answer>{said}</answer>"}
        for names, said in roles
    ]
    assert outcomes({"name": "knights_knaves"}, rows) == ["paid"] * 4
    sums = ["6 x 7 + 2", "$6 \\times 7 + 2 = 44$", "```\n6*7+2\n```", "6\\*7 + 2;"]
    sums += ["44 = 6*7 + 2", "\\frac{42}1", "45 = 6*7 + 2", "44 = 6*7"]
    rows = [
        {"facts": {"nums": [6, 7, 2], "target": 44}, "response": f"<answer>{s}</answer>"}
        for s in sums
    ]
    assert outcomes({"name": "countdown"}, rows) == [*["paid"] * 5, *["not"] * 3]
