"""Countdown: make a target from given numbers, each used once, by + - * /.

Problems are made from their solutions: two numbers are drawn and combined until one is left, so each
can be solved, with whole and positive numbers on the way.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

from onestage.problems.rows import Row, Split, Template, different, make_row

EXAMPLE = "(1 + 2) / 3"


class Part(NamedTuple):
    value: int
    text: str

    @property
    def operand(self) -> str:
        """Within a larger expression."""
        return self.text if self.text.isdigit() else f"({self.text})"


def generate(
    count: int,
    *,
    seed: int = 0,
    split: Split = "train",
    numbers: tuple[int, int] = (3, 4),
    given: tuple[int, int] = (1, 99),
    target: tuple[int, int] = (10, 100),
    operators: str = "+-*/",
    template: Template = "tinyzero",
) -> Iterator[Row]:
    """Different problems of a split; the same for the same arguments.

    `numbers`: how many are given, from and to. `given`, `target`: their ranges, both ends included.
    Rows have `nums` and `target`. `ValueError` where there are not as many problems.
    """
    _check(numbers, given, target, operators)
    return different(
        count, split, _draws(random.Random(seed), numbers, given, target, operators, template)
    )


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
        if len(parts) > 1 or not target[0] <= parts[0].value <= target[1]:
            yield None
            continue
        yield f"countdown {sorted(nums)} {parts[0].value}", _maker(nums, parts[0], steps, template)


def _combine(draw: random.Random, parts: list[Part], operators: str) -> str | None:
    """Replace two of the parts by one; the sentence that says so, None where nothing whole comes out."""
    left, right = draw.sample(range(len(parts)), 2)
    a, b = parts[left], parts[right]
    sign = draw.choice(operators)
    if sign in "-/" and a.value < b.value:
        a, b = b, a
    value = {"+": a.value + b.value, "-": a.value - b.value, "*": a.value * b.value}.get(sign)
    if sign == "/" and a.value % b.value == 0:
        value = a.value // b.value
    if value is None or value < 1:
        return None
    for place in sorted((left, right), reverse=True):
        del parts[place]
    parts.append(Part(value, f"{a.operand} {sign} {b.operand}"))
    return f"{a.value} {sign} {b.value} = {value}\n"


def _maker(nums: list[int], whole: Part, steps: list[str], template: Template) -> Callable[[], Row]:
    def make() -> Row:
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

    return make


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
