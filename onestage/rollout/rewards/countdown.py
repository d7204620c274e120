"""Countdown: make the target from the given numbers, each exactly once.

`exact`, our rules: the last `<answer> .. </answer>` of the response counts, wherever it stands; it
holds an expression of + - * / and parentheses, and may end with `= target`. It is computed exactly.

`authors`, to compare with the numbers of Liu et al. (arXiv 2505.16984), is their scorer (TinyZero's),
quirks included: only the last line is read, digits are the numbers wherever they stand, ** and // are
arithmetic, `= target` is an error, and anything at all within the tags is worth the format's reward.

Problems (`rows`) are made from their solutions: two numbers are drawn and combined until one is left,
so each can be solved, with whole and positive numbers on the way.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import permutations
from typing import Annotated, Any, Literal, NamedTuple

from onestage.rollout.rewards import Answer
from onestage.rollout.rewards import _arithmetic as arithmetic
from onestage.rollout.rewards import _markup as markup
from onestage.rollout.rewards._checker import Checker, NotJudged
from onestage.rollout.rewards._final_answer import (
    OPEN,
    final_tag,
    last_boxed,
    on_last_line,
    stand,
)
from onestage.rollout.rewards._problems import (
    Count,
    Row,
    Seed,
    Split,
    Template,
    different,
    make_row,
)

_ALLOWED = re.compile(r"[\d+\-*/().\s]+")
_PRODUCT = re.compile(r"(\d|\))\s*\(")
_TIMES = re.compile(r"(?<=[\d)])\s*[xX]\s*(?=[\d(])")
_FENCED = re.compile(r"\A\s*```\w*\n(.*?)\n?```\s*\Z", re.DOTALL)
_MOST_FOUND = 1000
_SEARCHED = 4
"""Numbers of a problem up to which all ways to combine them are gone through."""


@dataclass(frozen=True)
class Countdown(Checker):
    format_reward: float = 0.1
    """Of an expression that can be read but is not the answer."""
    rules: Literal["exact", "authors"] = "exact"

    def judge(self, answer: Answer) -> float:
        numbers, target = _problem(answer.facts)
        if self.rules == "authors":
            return self._as_authors(answer, numbers, target)
        found = final_tag(answer)
        said = _said(found[0]) if found else "="
        if said.count("=") > 1 or found is None:
            return 0.0
        equation, equals, tail = _turned(*said.partition("="))
        try:
            expression = arithmetic.plain(equation)
            result = arithmetic.plain(tail) if equals else None
            stated = result.value if result else Fraction(target)
        except arithmetic.Unreadable:
            return 0.0
        used = Counter(expression.numbers) == Counter(map(Fraction, numbers))
        right = used and expression.value == target and stated == target
        if not right or (result and len(result.numbers) > 1):
            return self.format_reward
        if re.search(r"\d\.\d|(?<![\d.])0\d", equation):
            raise NotJudged("44.0 or 044 may or may not be the given 44")
        stand(answer, found, OPEN)
        return 1.0

    def _as_authors(self, answer: Answer, numbers: list[int], target: int) -> float:
        equation = on_last_line(answer)
        if equation is None:
            return 0.0
        found = re.findall(r"\d+", equation)
        # Python's `int` refuses texts of several thousand digits.
        if len(found) != len(numbers) or any(len(digits) > _MOST_FOUND for digits in found):
            return self.format_reward
        used = sorted(map(int, found)) == sorted(numbers)
        if not used or not _ALLOWED.fullmatch(equation):
            return self.format_reward
        try:
            value = arithmetic.python(equation).value
            # The authors compute in floats and allow for their rounding.
            near = value is not None and abs(value - target) < 1e-5
        except (arithmetic.Unreadable, OverflowError):
            return self.format_reward
        return 1.0 if near else self.format_reward

    def check(self, facts: Mapping[str, Any]) -> None:
        _problem(facts)

    @classmethod
    def rows(
        cls,
        count: Count = 1000,
        *,
        numbers: Annotated[tuple[int, int], "How many are given: 3, or 3-4."] = (3, 4),
        given: Annotated[tuple[int, int], "Their range."] = (1, 99),
        target: Annotated[tuple[int, int], "The range of the target."] = (10, 100),
        operators: Annotated[str, "Those of the solutions."] = "+-*/",
        seed: Seed = 0,
        split: Split = "train",
        template: Template = "tinyzero",
    ) -> Iterator[Row]:
        """Make a target from given numbers, each used once.

        Different problems of a split, the same for the same arguments, with the columns `nums` and
        `target`. Ranges include both ends. `ValueError` where there are not as many problems.
        """
        _check(numbers, given, target, operators)
        return different(
            count, split, _draws(random.Random(seed), numbers, given, target, operators, template)
        )

    @classmethod
    def converted(
        cls, data: Iterable[Mapping[str, Any]], *, template: Template = "tinyzero"
    ) -> Iterator[Row]:
        """Rows of somebody's own with `nums` (or `numbers`) and `target`, as problems.

        With a worked solution where one with whole and positive numbers on the way is found: looked for
        among up to four numbers. Other columns stay. `ValueError` for a row that states no problem.
        """
        for number, row in enumerate(data, 1):
            try:
                nums, target = _problem(row)
            except ValueError as error:
                raise ValueError(f"row {number}: {error}") from None
            parts = [Part(one, str(one)) for one in nums]
            found = _solved(parts, target) if 1 < len(nums) <= _SEARCHED else None
            steps, text = found or ([], "")
            made = _row(nums, Part(target, text), steps, template)
            if found is None:
                made = {name: made[name] for name in ("prompt", "nums", "target")}
            yield {**row, **made}


def _said(text: str) -> str:
    """The equation, without a box around it and a full stop behind it."""
    boxed = last_boxed(text)
    whole = boxed is not None and text.startswith("\\boxed{") and text.endswith("}")
    said = markup.arithmetic(boxed[0] if boxed and whole else _FENCED.sub(r"\1", text))
    said = _TIMES.sub("*", said.replace("$", ""))
    return _PRODUCT.sub(r"\1*(", re.sub(r"(?<=[\d)])[.;]$", "", said.strip()))


def _turned(left: str, equals: str, right: str) -> tuple[str, str, str]:
    """An equation with its one number behind: `98 = 44 + 19 + 35` says the same."""
    stated = re.fullmatch(r"\s*-?\d+\s*", left) and re.search(r"\d\D+\d", right)
    return (right, equals, left) if stated else (left, equals, right)


def _problem(facts: Mapping[str, Any]) -> tuple[list[int], int]:
    numbers = facts.get("nums")
    numbers = facts.get("numbers") if numbers is None else numbers
    target = facts.get("target")
    if isinstance(target, float) and target.is_integer():
        target = int(target)
    whole = isinstance(target, int) and not isinstance(target, bool)
    try:
        given = [] if isinstance(numbers, str) else [int(n) for n in numbers or () if n == int(n)]
    except (TypeError, ValueError, OverflowError):
        given = []
    if not whole or not given or len(given) != len(numbers or ()):
        raise ValueError(
            "countdown needs the columns `nums` (or `numbers`), a list of whole numbers, and `target`,"
            f" a whole number; got nums {numbers!r}, target {facts.get('target')!r}"
        )
    assert isinstance(target, int)
    return given, target


EXAMPLE = "(1 + 2) / 3"


class Part(NamedTuple):
    value: int
    text: str

    @property
    def operand(self) -> str:
        """Within a larger expression."""
        return self.text if self.text.isdigit() else f"({self.text})"


def _draws(
    draw: random.Random,
    numbers: tuple[int, int],
    given: tuple[int, int],
    target: tuple[int, int],
    operators: str,
    template: Template,
) -> Iterator[tuple[str, Callable[[], Row]] | None]:
    while True:
        nums = [draw.randint(*given) for _ in range(draw.randint(*numbers))]
        parts, steps = [Part(n, str(n)) for n in nums], list[str]()
        while len(parts) > 1:
            made = _combine(draw, parts, operators)
            if made is None:
                break
            steps.append(made)
        # Drawn and thrown away: to steer the draws would favour some problems.
        if len(parts) > 1 or not target[0] <= parts[0].value <= target[1]:
            yield None
            continue
        make = partial(_row, nums, parts[0], steps, template)
        yield f"countdown {sorted(nums)} {parts[0].value}", make


def _combine(draw: random.Random, parts: list[Part], operators: str) -> str | None:
    """Replace two of the parts by one; the sentence that says so, None where nothing whole comes out."""
    left, right = draw.sample(range(len(parts)), 2)
    a, b = parts[left], parts[right]
    sign = draw.choice(operators)
    if sign in "-/" and a.value < b.value:
        a, b = b, a
    made = _made(a, sign, b)
    if made is None:
        return None
    for place in sorted((left, right), reverse=True):
        del parts[place]
    parts.append(made)
    return f"{a.value} {sign} {b.value} = {made.value}\n"


def _solved(parts: list[Part], target: int) -> tuple[list[str], str] | None:
    """Steps from the parts to the target, and the expression; None where there are none."""
    if len(parts) == 1:
        return ([], parts[0].text) if parts[0].value == target else None
    for left, right in permutations(range(len(parts)), 2):
        rest = [part for place, part in enumerate(parts) if place not in (left, right)]
        for sign in "+-*/":
            # Of a sum and a product, the other order is the same.
            if sign in "+*" and left > right:
                continue
            made = _made(parts[left], sign, parts[right])
            found = _solved([*rest, made], target) if made else None
            if made and found:
                step = f"{parts[left].value} {sign} {parts[right].value} = {made.value}\n"
                return [step, *found[0]], found[1]
    return None


def _made(a: Part, sign: str, b: Part) -> Part | None:
    """Two parts as one; None where nothing whole and positive comes out."""
    value = {"+": a.value + b.value, "-": a.value - b.value, "*": a.value * b.value}.get(sign)
    if sign == "/" and b.value and a.value % b.value == 0:
        value = a.value // b.value
    return None if value is None or value < 1 else Part(value, f"{a.operand} {sign} {b.operand}")


def _row(nums: list[int], whole: Part, steps: list[str], template: Template) -> Row:
    return make_row(
        template,
        f"Using the numbers {nums}, create an equation that equals {whole.value}. You can use basic"
        " arithmetic operations (+, -, *, /) and each number can only be used once.",
        f"{' '.join(map(str, nums))} = {whole.value}\n",
        EXAMPLE,
        [*steps, f"Therefore, the final equation is {whole.text}"],
        whole.text,
        nums=nums,
        target=whole.value,
    )


def _check(
    numbers: tuple[int, int], given: tuple[int, int], target: tuple[int, int], operators: str
) -> None:
    for name, (low, high), least in (
        ("numbers", numbers, 2),
        ("given", given, 1),
        ("target", target, 1),
    ):
        if not least <= low <= high:
            raise ValueError(f"{name}: needs {least} <= from <= to, got {low} to {high}")
    if not operators or set(operators) - set("+-*/"):
        raise ValueError(f"operators {operators!r}: allowed are some of + - * /")
