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
    assert not [row for row, how in found if how == "paid" and row["want"] != 1]
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
    ("x \\le 3", "(-\\infty, 3]"),
    ("\\sqrt{8}", "2\\sqrt{2}"),
    ("C", "\\text{(C) } 7"),
    ("90", "90\\text{ minutes}"),
    ("HTTH", "\\text{HTTH}"),
    ("3x+2", "2 + 3x"),
    ("4", "\\mathbf{4}"),
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
]


def test_right_means_right() -> None:
    found = outcomes({"name": "math"}, [math(*case) for case in [*PAID, *UNPAID]])
    assert found == ["paid"] * len(PAID) + ["not"] * len(UNPAID)


def test_what_cannot_be_decided_is_not_judged() -> None:
    unclear = [
        ("101_2", "101"),
        ("(1, 2)", "1, 2"),
        ("5", "5\\%"),
        ("1, 2", "\\lfloor 1.5 \\rfloor, 2"),
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
