"""Answers of kinds that a reader found beside the field cases, most of them with published graders' own
tests at hand: constants typed in words, capitals, times, conditions, choices, what touches a box."""

from __future__ import annotations

from typing import Any

import pytest

from bench.trust.answers import outcomes
from onestage.rollout.rewards import make

WRONG = [
    # constants, scales and relations are no units
    *(
        ("2", "2pi"),
        ("36", "36 pi"),
        ("12", "12\\text{ pi}"),
        ("2", "sqrt 2"),
        ("8", "cbrt 8"),
        ("2", "2 theta"),
        ("12 pi", "12"),
        ("5", "5\\text{ thirds}"),
        ("5", "5\\text{ tenths}"),
        ("5", "5\u4e07"),
        ("5", "5\u4ebf"),
        ("5", "5\\text{ lakh}"),
        ("5", "5\\text{ Millionen}"),
        ("5", "5\\text{ bn}"),
        ("5", "\\text{the reciprocal of }5"),
        ("5", "\\text{cube of }5"),
        ("5", "5\\text{ times as many}"),
        ("5", "\\text{a multiple of }5"),
        ("5", "\\text{any integer besides }5"),
        ("5", "5\\text{ or so}"),
        ("5", "5\\text{ onwards}"),
        ("5", "5\\text{ below zero}"),
    ),
    # R is not r
    *(
        ("\\frac{R}{r}", "\\frac{r}{R}"),
        ("R-r", "r-R"),
        ("\\frac{M}{m+M}", "\\frac{m}{M+m}"),
        ("\\sqrt{r^2-R^2}", "\\sqrt{R^2-r^2}"),
        ("n(N-1)", "N(n-1)"),
        ("\\binom{N}{n}", "\\binom{n}{N}"),
        ("\\pi R^2", "\\pi r^2"),
        ("\\Omega", "\\omega"),
        ("2r+R", "2R+r"),
    ),
    # times of day, and ratios
    *(
        ("12:00", "1:00"),
        ("12:00", "3:00"),
        ("3:45", "1:15"),
        ("9:00 AM", "8:00 AM"),
        ("3:00\\text{ p.m.}", "5:00\\text{ p.m.}"),
        ("9:09", "10:10"),
        ("\\frac{1}{0}", "\\frac{2}{0}"),
        ("2:3:1", "4:6"),
    ),
    # inequalities, each of its variable
    *(
        ("a<0, b>0", "a > 0, b < 0"),
        ("x>0, y>0", "x>0"),
        ("x\\ge 1", "x\\ge 1, y\\ge 1"),
        ("x > 3", "y > 3"),
        ("x<-1 \\text{ or } x>1", "x<-1 \\text{ and } x>1"),
        ("\\mathbb{R}", "x>1 \\text{ and } x<3"),
        ("x>1", "x>3 \\text{ and } x>1"),
        ("(-\\infty,\\infty)", "x \\ge 0, x \\le 5"),
    ),
    # several choices, and what is none
    *(
        ("A", "A. B. C. D."),
        ("A", "(A)(B)(C)(D)(E)"),
        ("A", "(A) (B)"),
        ("A", "(A); (B)"),
        ("A", "(A) oder (B)"),
        ("A", "(A) is incorrect"),
        ("A", "A. False"),
        ("A", "A \\cup B"),
        ("A", "A\\quad B"),
        ("C", "C\\sqrt{2}"),
        ("D", "D \\ne 3"),
    ),
    # how many of what
    *(
        ("3\\text{ boys and }5\\text{ girls}", "5\\text{ boys and }3\\text{ girls}"),
        ("\\text{5 nickels and 3 dimes}", "\\text{3 nickels and 5 dimes}"),
        ("5 \\text{ hours and } 10 \\text{ km}", "10 \\text{ hours and } 5 \\text{ km}"),
        ("\\text{I and II}", "\\text{I or II}"),
        ("m=3, n=5", "5, 3"),
    ),
    # of which part is the scale?
    *(
        ("x > 5", "x > 5 \\text{ million}"),
        ("(1,2)", "(1,2) \\text{ thousand}"),
        ("[1,5]", "[1,5] \\text{ million}"),
        ("\\{3,5\\}", "\\{3,5\\}\\text{ million}"),
        ("\\pm 3", "\\pm 3\\text{ thousand}"),
        ("3,5", "3,5 \\text{ dozen}"),
        (
            "\\begin{pmatrix}1\\\\2\\end{pmatrix}",
            "\\begin{pmatrix}1\\\\2\\end{pmatrix}\\text{ thousand}",
        ),
    ),
    # primes, transposes, inverses, products in order
    *(
        ("x", "x'"),
        ("f(x)", "f'(x)"),
        ("y'", "y''"),
        ("f(2)", "f'(2)"),
        ("A", "A^T"),
        ("x^2", "x^{(2)}"),
        ("\\frac{1}{f(x)}", "f^{-1}(x)"),
        ("b\\times a", "a\\times b"),
        ("\\vec{b}\\times\\vec{a}", "\\vec{a}\\times\\vec{b}"),
        ("A", "\\text{tr} A"),
        ("1,2,3", "1, 2, 3, ..."),
    ),
]
"""(right answer, final answer), not to be paid."""
RIGHT = [
    # a comma before the last
    *(
        ("1,2,3", "1, 2, \\text{ and } 3"),
        ("1,2,3", "1, 2, and 3"),
        ("1, 2, \\text{ and } 3", "1,2,3"),
        ("(1,2),(3,4)", "(1,2), \\text{ and } (3,4)"),
    ),
    # thousands as LaTeX sets them
    *(
        ("11,\\! 111,\\! 111,\\! 100", "11111111100"),
        ("1,\\! 000", "1000"),
        ("32349", "32,\\! 349"),
    ),
    # the right choice comes with its text
    *(
        ("\\textbf{(A)}\\ 5", "A"),
        ("\\text{(A) } 5", "(A)"),
        ("C. 12", "C"),
        ("\\textbf{(A)}\\ 5", "\\textbf{(A)}"),
    ),
    # typed in ASCII
    *(
        ("2\\pi", "2*pi"),
        ("36\\pi", "36 pi"),
        ("\\frac{\\pi}{2}", "pi/2"),
        ("\\pi", "pi"),
        ("6\\sqrt{2}", "6*sqrt(2)"),
        ("x^2", "x**2"),
        ("1024", "2**10"),
        ("e^x", "exp(x)"),
        ("\\sin x", "sin(x)"),
        ("\\ln 2", "ln(2)"),
        ("x \\neq 5", "x != 5"),
        ("[1,\\infty)", "[1, infty)"),
    ),
    # typed in Unicode
    *(
        ("\\pm 3", "\u00b13"),
        ("x\\neq5", "x \u2260 5"),
        ("x\\ge5", "x \u2a7e 5"),
        ("x^4", "x\u2074"),
        ("10^{-3}", "10\u207b\u00b3"),
        ("\\sqrt[3]{2}", "\u221b2"),
        ("5", "\uff15"),
        ("1,2", "1\uff0c2"),
        ("(1,2)", "\uff081\uff0c2\uff09"),
        ("50\\%", "50\uff05"),
        ("\\frac12", "1\uff0f2"),
        ("30", "30\u00ba"),
        ("30", "30\u02da"),
        ("18", "\uffe518"),
        ("2,3", "2\u62163"),
        ("2,3", "2\u548c3"),
    ),
    # ranges as conditions
    *(
        ("(2,5)", "x>2 \\text{ and } x<5"),
        ("-1<k<1", "k>-1,k<1"),
        ("[5,\\infty)", "\\{x \\mid x \\ge 5\\}"),
        ("x\\ge5", "\\{x : x \\ge 5\\}"),
        ("\\mathbb{R}", "\\text{all real numbers}"),
        ("\\mathbb{R}\\setminus\\{2\\}", "\\mathbb{R}-\\{2\\}"),
    ),
    # exact, and about how much
    *(
        ("\\frac{\\sqrt3}{3}", "\\frac{\\sqrt{3}}{3} \\approx 0.577"),
        ("10\\pi", "10\\pi \\approx 31.4"),
    ),
    # separators
    *(
        ("\\frac{1}{2}", "\\frac 1 2"),
        ("1,2,3", "1;2;3"),
        ("\\{-12,-11\\}", "-12;-11"),
        ("(1;2)", "(1, 2)"),
        ("\\lbrace 1,2\\rbrace", "\\{1,2\\}"),
        ("(1,2)", "x = 1, \\quad y = 2"),
        ("(5,8),(8,5)", "(x, y) = (5, 8) \\quad \\text{and} \\quad (8, 5)"),
    ),
    # units of one capital
    *(
        ("18", "18\\text{ N}"),
        ("5", "5\\text{ V}"),
        ("5", "5\\text{ J}"),
        ("5", "5 L"),
        ("5", "5\\ \\Omega"),
        ("18", "18 \\text{ ms}^{-1}"),
    ),
    # complex numbers, degrees of an angle
    *(
        ("(1+i)^2", "2i"),
        ("\\frac{1}{1+i}", "\\frac{1-i}{2}"),
        ("1+\\sqrt3 i", "2e^{i\\pi/3}"),
        ("\\frac12", "\\cos 60^\\circ"),
        ("\\tan 15^\\circ", "2-\\sqrt3"),
    ),
    # what is measured
    *(
        ("|AB|=1", "1"),
        ("\\angle ABC = 30^\\circ", "30"),
        ("\\frac{AB}{CD}=\\frac12", "\\frac12"),
        ("AB:CD=1:2", "1:2"),
        ("\\cos A=\\frac12", "\\frac12"),
        ("5=x", "5"),
        ("5", "5 = x"),
    ),
    # nothing, and subscripts
    *(
        ("\\text{no solution}", "\\text{No solutions}"),
        ("\\emptyset", "\\text{no solution}"),
        ("x_{\\alpha}", "x_\\alpha"),
    ),
    # as before
    ("[-1, -\\frac{1}{2}) \\cup (0, 1)", "[-1, -\\tfrac12) \\cup (0, 1)"),
    (
        "1\\leq|z|\\leq \\frac{3}{2}",
        "z \\in \\left[-\\frac{3}{2}, -1\\right] \\cup \\left[1, \\frac{3}{2}\\right]",
    ),
    ("\\arctan(2)", "\\tan^{-1}(2)"),
    ("x^2+c", "x^2+C"),
    ("3:20\\text{ p.m.}", "3:20 PM"),
    ("12:30", "12:30 PM"),
    ("lw", "l \\times w"),
    ("1000\\text{ boys and }5\\text{ girls}", "1000\\text{ boys and }5.0\\text{ girls}"),
    ("(2,5)", "2<x<5"),
    ("5", "5\\text{ pairs}"),
    ("A", "a"),
]
BESIDE = [
    "$-\\boxed{42}$",
    "$2\\boxed{42}$",
    "$\\boxed{42}\\times 10^{3}$",
    "\\boxed{42} million",
    "\\boxed{42}^2",
    "$\\frac{1}{\\boxed{42}}$",
    "$\\boxed{42}\\pi$",
    "more than \\boxed{42}",
    "half of \\boxed{42}",
    "\\boxed{42} or more",
    "\\boxed{42} is not the answer.",
    "either \\boxed{42} or 43",
    "$x \\ne \\boxed{42}$",
    "$x>\\boxed{42}$",
    "\\boxed{42}?",
    "\\boxed{41} + \\boxed{42}",
    "<answer>41</answer> or <answer>42</answer>",
    "<answer>41</answer><answer>42</answer>",
    "\\boxed{42}\uff1f\u4e0d\u5bf9\uff0c\u5e94\u8be5\u662f43",
    "\\boxed{42}\n\u7b49\u7b49\uff0c\u6211\u7b97\u9519\u4e86",
    "\\boxed{42} Moment, das ist falsch.",
    "La respuesta no es \\boxed{42}",
    "\\boxed{42}\nThe answer is \\frac{1}{2}.",
    "<think>a</think> \\boxed{41} <think> hmm \\boxed{42}",
    "Sure!\n<think>\nhm \\boxed{42}",
    "<|begin_of_thought|>\\boxed{42} so far",
]
"""What makes another value of 42, denies it, or is a draft."""
STANDS = [
    *(
        "about \\boxed{42}",
        "at least \\boxed{42}",
        "$x \\ge \\boxed{42}$",
        "- \\boxed{42}",
        "**Answer** - $\\boxed{42}$",
        "x = \\boxed{42}^\\circ",
        "so => \\boxed{42}!",
    ),
    *(
        "> \\boxed{42}",
        "<b>\\boxed{42}</b>",
        "\\boxed{42}\\% of it",
        "$3 \\times 14 = \\boxed{42}$.\n- 3 apples",
        "<Answer>42</Answer>",
    ),
    *(
        "\\boxed{42}. The answer is 42.",
        "\\boxed{42} dollars. So the answer is $42.",
        "**\\boxed{42}**",
    ),
]
"""What does not."""


def outcome(gold: str, response: str) -> dict[str, Any]:
    return {"facts": {"answer": gold}, "response": response}


def test_no_wrong_answer_of_these_kinds_is_paid() -> None:
    given = [outcome(gold, f"So the answer is \\boxed{{{final}}}.") for gold, final in WRONG]
    found = outcomes({"name": "math"}, given)
    assert [one for one, how in zip(WRONG, found, strict=True) if how == "paid"] == []


def test_right_answers_of_these_kinds_are_paid() -> None:
    given = [outcome(gold, f"So the answer is \\boxed{{{final}}}.") for gold, final in RIGHT]
    found = outcomes({"name": "math"}, given)
    assert [(*one, how) for one, how in zip(RIGHT, found, strict=True) if how != "paid"] == []


def test_what_touches_a_box_is_looked_at() -> None:
    found = outcomes({"name": "math"}, [outcome("42", response) for response in BESIDE])
    assert [one for one, how in zip(BESIDE, found, strict=True) if how == "paid"] == []
    found = outcomes({"name": "math"}, [outcome("42", response) for response in STANDS])
    assert [(one, how) for one, how in zip(STANDS, found, strict=True) if how != "paid"] == []
    stated = ["\\boxed{\\frac12}\nThe answer is \\frac13.", "\\boxed{\\frac12}. The answer is 3."]
    found = outcomes({"name": "math"}, [outcome("\\frac12", response) for response in stated])
    assert found == ["undecided"] * 2


def test_gsm8k_knows_the_words_that_make_another_number() -> None:
    words = ["42 lakh", "42 bn", "42 Millionen", "42pi", "42 thirds", "42 halves", "42 quarters"]
    words += ["the reciprocal of 42", "42 times as many", "42 pairs", "42 m", "42 eggs each"]
    found = outcomes({"name": "gsm8k"}, [outcome("42", f"so\n#### {said}") for said in words])
    assert found == [*["not"] * 4, *["undecided"] * 5, *["paid"] * 3]


def test_the_parts_of_a_list_may_have_a_box_each() -> None:
    given = [
        outcome("-2,1", "\\boxed{-2} and \\boxed{1}"),
        outcome("1, 2", "a) \\boxed{1}\nb) \\boxed{2}"),
        outcome("3, 5, 7", "Final answers: \\boxed{3}, \\boxed{5}, \\boxed{7}"),
        outcome("1, 2", "\\boxed{1} or \\boxed{3}"),
        outcome("1, 2", "\\boxed{1} and \\boxed{3}"),
    ]
    assert outcomes({"name": "math"}, given) == [*["paid"] * 3, *["not"] * 2]
    wrong = [outcome("1, 2", "\\boxed{1} and \\boxed{2}. Wait, that is wrong.")]
    wrong += [outcome("1, 2", "It is not \\boxed{1}, \\boxed{2}")]
    assert "paid" not in outcomes({"name": "math"}, wrong)


@pytest.mark.parametrize(
    "gold",
    [
        "Natalia sold 48 and 24.\n#### 72",
        "#### 72",
        "\\boxed 72",
        "<answer>72</answer>",
        "\\\\boxed{72}",
        "72.0",
    ],
)
def test_right_answers_are_found_where_data_sets_write_them(gold: str) -> None:
    assert outcomes({"name": "math"}, [outcome(gold, "\\boxed{72}")]) == ["paid"]


def test_right_answers_that_are_none_are_refused() -> None:
    check = make({"name": "math"}).check
    for gold in ("\\boxed{71} or \\boxed{72}", "nan", float("nan")):
        with pytest.raises(ValueError, match="math needs"):
            check({"answer": gold})
    check({"answer": "$\\boxed{1}$ and $\\boxed{2}$"})
    both = outcome("$\\boxed{1}$ and $\\boxed{2}$", "\\boxed{1, 2}")
    assert outcomes({"name": "math"}, [both]) == ["paid"]


def test_what_cannot_be_a_set_of_numbers_raises_nothing() -> None:
    given = [
        outcome("(-\\infty, 5]", "\\boxed{(6,31,-1)}"),
        outcome("42", "\\boxed{x^{100}-x^{99}+1 \\ge 0}"),
        outcome("42", "\\boxed{(0,1)" + 100 * "\\cup(1,2)" + "}"),
        outcome("(0,1]", "\\boxed{(0,\\frac{1}{0}]}"),
    ]
    assert "paid" not in outcomes({"name": "math"}, given)
