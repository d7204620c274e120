"""Ten thousand hostile and random answers: no crash, no hang, and nothing right that is not.

What a checker calls right is held against a program that shares nothing with it: Python's own parser for
arithmetic, sympy and plain strings for the rest. `bench/hostile.py` does the same through the pool.
"""

from __future__ import annotations

import ast
import itertools
import operator
import random
import re
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from support import hostile

from onestage.rollout.rewards import Answer, Failure, make
from onestage.rollout.rewards._checker import Checker

PROMPT = "User: ..\nAssistant: so <think> "
MANY = [*hostile.fixed(), *itertools.islice(hostile.drawn(1), 10_000 - len(list(hostile.fixed())))]
FACTS: dict[str, dict[str, Any]] = {
    "countdown": {"nums": [44, 19, 35], "target": 98},
    "knights_knaves": {"names": ["Zoey", "Oliver"], "truth": [True, False]},
    "gsm8k": {"answer": "so it is 31\n#### 31"},
    "math": {"answer": "\\frac{7}{3}"},
    "ifeval": {
        "instruction_id_list": ["detectable_format:title", "length_constraints:number_sentences"],
        "kwargs": [{}, {"num_sentences": 3, "relation": "at least"}],
    },
    "match": {"answer": ["no such answer", "nor this"]},
    "format": {},
}
OPERATORS = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip


def python_says(text: str) -> bool:
    """Whether a text is arithmetic over 44, 19, 35, each once, that gives 98, for Python's parser."""
    numbers: list[Fraction] = []

    def of(node: ast.AST) -> Fraction:
        if isinstance(node, ast.Constant):
            assert type(node.value) in (int, float)
            numbers.append(Fraction(str(node.value)))
            return numbers[-1]
        if isinstance(node, ast.UnaryOp):
            assert isinstance(node.op, ast.USub)
            return -of(node.operand)
        assert isinstance(node, ast.BinOp)
        return OPERATORS[type(node.op)](of(node.left), of(node.right))

    sides = text.translate(str.maketrans("×÷−", "*/-")).split("=")  # noqa: RUF001
    try:
        value = of(ast.parse("(" + sides[0] + ")", mode="eval").body)
        stated = [float(side) for side in sides[1:]]
    except (AssertionError, SyntaxError, ValueError, ZeroDivisionError, KeyError, RecursionError):
        return False
    return value == 98 and stated in ([], [98.0]) and sorted(numbers) == [19, 35, 44]


def last_answer(text: str) -> str:
    return text.rpartition("</answer>")[0].rpartition("<answer>")[2]


def right(name: str, text: str) -> bool:
    """What may be called right, found in another way."""
    if name == "countdown":
        # What cannot be seen changes nothing that a reader reads.
        return python_says(re.sub("[\u200b-\u200f\ufeff]", "", last_answer(text)))
    if name == "knights_knaves":
        said = last_answer(text)
        roles = re.findall(r"(Zoey|Oliver) is a (knight|knave)", said, re.I)
        return sorted(roles) == [("Oliver", "knave"), ("Zoey", "knight")]
    if name == "gsm8k":
        return re.findall(r"\d+(?:\.\d+)?", text.replace("<answer>1</answer>", ""))[-1:] in (
            ["31"],
            ["31.0"],
        )
    if name == "math":
        return re.search(r"7\s*/\s*3|frac\s*\{?7\}?\s*\{?3", text) is not None
    if name == "ifeval":
        return "<<" in text and ">>" in text and len(re.findall("[.!?]", text)) >= 2
    if name == "match":
        return text.split()[-1:] in (["answer"], ["this"])
    return text.strip().startswith("<think>") and text.strip().endswith("</answer>")


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("countdown", {}, 10_000),
        ("countdown", {"rules": "authors"}, 10_000),
        ("knights_knaves", {}, 10_000),
        ("knights_knaves", {"rules": "authors"}, 10_000),
        ("gsm8k", {}, 10_000),
        ("gsm8k", {"rules": "authors"}, 10_000),
        ("math", {"rules": "authors"}, 10_000),
        ("ifeval", {"reading": "loose"}, 10_000),
        ("format", {}, 10_000),
        ("match", {"part": "first_sentence"}, 10_000),
    ],
)
def test_in_this_process(name: str, options: dict[str, Any], count: int) -> None:
    checker = make({"name": name, **options})
    assert isinstance(checker, Checker)
    allowed = {0.0, 1.0} if name in ("ifeval", "format", "match") else {0.0, 0.1, 1.0}
    for text in MANY[:count]:
        start = time.perf_counter()
        reward = checker.judge(Answer(PROMPT, text, FACTS[name]))
        assert reward in allowed
        assert reward < 1 or right(name, text), text
        assert time.perf_counter() - start < 2, text


@pytest.mark.parametrize(
    "name", ["countdown", "knights_knaves", "gsm8k", "math", "ifeval", "format", "match"]
)
def test_through_the_pool(name: str) -> None:
    """Also the huge ones, and those that only a deadline ends."""
    texts = [*list(hostile.fixed())[:: 11 if name == "math" else 3], *list(hostile.huge())[::2]]
    checker = make({"name": name, "deadline": 2.0})
    outcomes = checker([Answer(PROMPT, text, FACTS[name]) for text in texts])
    assert len(outcomes) == len(texts)
    for text, outcome in zip(texts, outcomes, strict=True):
        if isinstance(outcome, Failure):
            assert name == "math", (text[:100], outcome)
            assert outcome.sort == "deadline", (text, outcome)
        else:
            assert outcome < 1 or right(name, text), text


def test_right_answers_among_them_are_found() -> None:
    """The program that is held against the checkers agrees on sums that are drawn at random."""
    draw = random.Random(5)
    checker = make("countdown")
    assert isinstance(checker, Checker)
    found = 0
    for _ in range(3000):
        numbers = draw.sample(["44", "19", "35", "1"], 3)
        signs = draw.choices("+-*/", weights=(6, 1, 1, 1), k=2)
        text = f"{numbers[0]} {signs[0]} ({numbers[1]} {signs[1]} {numbers[2]})" + draw.choice(
            ["", " = 98", "=98.0", " = 97", " = ", ")"]
        )
        reward = checker.judge(Answer("", f"<answer>{text}</answer>", FACTS["countdown"]))
        assert (reward == 1.0) == python_says(text), text
        found += reward == 1.0
    assert found > 100


def test_nothing_of_a_models_text_is_executed() -> None:
    """No file of the checkers evaluates text; sympy's parser is reached through math-verify alone."""
    import onestage.rollout.rewards as package

    for file in Path(package.__path__[0]).glob("*.py"):
        names = {
            node.func.id
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not names & {"eval", "exec", "compile", "sympify", "__import__"}, file
