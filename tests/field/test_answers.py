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
