r"""Worked solutions, sentence by sentence; rows of GSM8K and MATH as problems to check.

Sentences end at line ends and at . ! ? before the next beginning; not within numbers, after
abbreviations and initials, nor within formulas ($..$, $$..$$, \(..\), \[..\], environments).
Joined they give the text again, and none is blank.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from onestage.data.rows import sentences
from onestage.rollout.rewards._problems import Row, Template, make_row

EXAMPLE = "12"


_CALCULATION = re.compile(r"<<[^<>]*>>")


def gsm8k(
    rows: Iterable[Mapping[str, Any]],
    *,
    template: Template = "tinyzero",
    calculations: Literal["remove", "keep"] = "remove",
) -> Iterator[Row]:
    """Rows with `question` and `answer` (a solution that ends in "#### 18"), as problems.

    `calculations`: the calculator's notes in the solutions, as in "16 - 3 = <<16-3=13>>13".
    """
    if calculations not in ("remove", "keep"):
        raise ValueError(f"calculations {calculations!r}: allowed are remove and keep")
    for number, row in enumerate(rows, 1):
        question, worked = _columns("gsm8k", number, row, "question", "answer")
        solution, marker, answer = worked.rpartition("####")
        if not marker or not answer.strip():
            raise ValueError(f"gsm8k row {number}: `answer` does not end in a line '#### ..'")
        if calculations == "remove":
            solution = _CALCULATION.sub("", solution)
        yield _checked(template, question, solution, answer.strip().replace(",", ""))


def math(rows: Iterable[Mapping[str, Any]], *, template: Template = "tinyzero") -> Iterator[Row]:
    r"""Rows with `problem` and `solution` (the answer in its last \boxed{..}), as problems."""
    for number, row in enumerate(rows, 1):
        problem, solution = _columns("math", number, row, "problem", "solution")
        answer = boxed(solution)
        if not answer:
            raise ValueError(f"math row {number}: `solution` has no \\boxed{{..}}")
        yield _checked(template, problem, solution, answer)


def boxed(text: str) -> str | None:
    r"""What the last \boxed{..} of a text holds; `\boxed 5` and \fbox{..} too."""
    start = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    opening = text.find("{", start) if start >= 0 else -1
    if start < 0:
        return None
    if opening < 0 or text[start:opening].strip() not in ("\\boxed", "\\fbox"):
        bare = re.match(r"\\f?boxe?d?\s*(\S+?)[$.,\s]*(?:\s|$)", text[start:])
        return bare.group(1) if bare else None
    depth = 0
    for brace in re.finditer(r"\\[\\{}]|[{}]", text[opening:]):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0:
            return text[opening + 1 : opening + brace.start()].strip()
    return None


def _checked(template: Template, question: str, solution: str, answer: str) -> Row:
    steps = sentences(solution.strip())
    return make_row(template, question.strip(), f"{question.strip()}\n", EXAMPLE, steps, answer)


def _columns(name: str, number: int, row: Mapping[str, Any], *columns: str) -> list[str]:
    for column in columns:
        if not isinstance(row.get(column), str):
            raise ValueError(
                f"{name} row {number}: needs `{columns[0]}` and `{columns[1]}`, two texts;"
                f" got {', '.join(map(repr, row)) or 'no column'}"
            )
    return [row[column] for column in columns]
