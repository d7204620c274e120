r"""Word problems whose answer is one number, as in GSM8K.

`number`, our rules: the final answer is the last `<answer> .. </answer>`, else what follows the last
"####", else the last \boxed{..}. It must hold exactly one number, written in any common way ($18,
1,450,000, 18.0, 1/2, 18 eggs); two are no answer, whichever of them is right, and neither is a formula
(18^2, 18 + x) or a scale in words (18 million). Compared exactly.

`authors`, the scorer of Liu et al. (arXiv 2505.16984): the last tag on the last line, by Python's
`float`.

Problems (`rows`) are rows of GSM8K, their solutions cut into sentences.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, Literal

from onestage.rollout.rewards import Answer
from onestage.rollout.rewards import _markup as markup
from onestage.rollout.rewards._checker import Checker, NotJudged
from onestage.rollout.rewards._final_answer import (
    OPEN,
    final_box,
    final_tag,
    last_boxed,
    on_last_line,
    spoken,
    stand,
)
from onestage.rollout.rewards._math_normal_form import without_words
from onestage.rollout.rewards._math_words import FRACTIONS, of_a_number
from onestage.rollout.rewards._problems import Row, Template, texts, worked_row
from onestage.rollout.rewards._second_thoughts import hedged

LONGEST = 5000
"""Characters of a final answer."""
MOST_DIGITS = 50
_NUMBER = re.compile(
    r"(?P<minus>[-−–]\s?)?[$€£¥₹]?\s?(?P<minus2>[-−–])?"  # noqa: RUF001
    r"(?P<whole>\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?P<part>\.\d+)?(?:\s?/\s?(?P<below>\d+))?",
    re.ASCII,
)
_RATE = re.compile(r"(?<=[^\W\d_])\s?/\s?(?=[^\W\d_])|(?<=\d)\s?/\s?(?=[^\W\d_]{3})")
"""Between two units, or behind a number: km/h, $42/hour."""
_BOXED = re.compile(r"[\s$]*\\boxed\{([^{}]*)\}[\s$.]*")
_ABOUT = re.compile(r"(?:^|\s)~\s?[$€£]?\d")
MARK = "####"
MOST_MARKED = 2
"""Different answers: one, and what replaces it."""
_CALCULATION = re.compile(r"<<[^<>]*>>")
_LATEX = (("\\$", "$"), ("{,}", ","), ("\\,", ""), ("\\%", "%"))
"""What parts or marks a number in LaTeX; the rest is markup."""
_AROUND = re.compile(
    r"(?:[^\W\d_]-(?=[^\W\d_])|[^\W\d_]|[\s.,:;!'\"$€£¥₹%°=()\u3002\uff0c\u2713\u2714\u2705])*"
)
"""What may stand around a number: words and units, no operators."""
_SCALE = re.compile(
    r"(?i:\b(?:hundred|thousand|million|billion|trillion|dozen|pi|squared|cubed|lakh|crore|bn)s?\b"
    r"|\b(?:tausend|millionen|milliarden?|millones)\b)|\d\s?(?:(?:[kKMBxei]|pi)\b|π)"
)
_PARTS = re.compile(rf"(?i:\b(?:{'|'.join(sorted(FRACTIONS - {'halves', 'half'}))})s\b|\bhalves\b)")
"""42 thirds are 14, and 42 quarters may be coins."""
_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}", re.ASCII)


@dataclass(frozen=True)
class GSM8K(Checker):
    format_reward: float = 0.1
    """Of a final answer that can be read but is wrong."""
    rules: Literal["number", "authors"] = "number"

    def judge(self, answer: Answer) -> float:
        gold = _gold(answer.facts)
        if self.rules == "authors":
            return self._as_authors(answer, gold)
        marked = _final(answer)
        if marked is None:
            return 0.0
        final, end, mark = marked
        read = _read(final)
        if read is None:
            return 0.0
        numbers, pieces = read
        around = " ".join(pieces)
        plain = _AROUND.fullmatch(around) and not _SCALE.search(final)
        alone = not any(map(str.isnumeric, around))  # no digits of other scripts, no exponents
        if not (numbers == [gold] and plain and alone):
            return self.format_reward
        unsure = _ABOUT.search(final) or _PARTS.search(final) or of_a_number(final)
        if hedged(*pieces) or unsure:
            raise NotJudged(f"{final[:60]!r} may or may not say that it is {gold}")
        if mark == MARK and _sprayed(spoken(answer)):
            raise NotJudged(f"more than two answers behind {MARK}, or two in a line")
        stand(answer, (final, end), mark)
        return 1.0

    def _as_authors(self, answer: Answer, gold: Fraction) -> float:
        text = on_last_line(answer)
        if text is None:
            return 0.0
        try:
            return 1.0 if abs(float(text) - float(gold)) < 1e-5 else self.format_reward
        except ValueError:
            return self.format_reward

    def check(self, facts: Mapping[str, Any]) -> None:
        _gold(facts)

    @classmethod
    def rows(
        cls,
        data: Iterable[Mapping[str, Any]],
        *,
        calculations: Annotated[
            Literal["remove", "keep"], "remove or keep the notes as in <<16-3=13>>."
        ] = "remove",
        template: Template = "tinyzero",
    ) -> Iterator[Row]:
        """Rows of GSM8K (question, answer) as problems.

        `data`: rows with `question` and `answer`, a solution that ends in "#### 18". `calculations`: the
        calculator's notes in the solutions, as in "16 - 3 = <<16-3=13>>13".
        """
        if calculations not in ("remove", "keep"):
            raise ValueError(f"calculations {calculations!r}: allowed are remove and keep")
        for number, row in enumerate(data, 1):
            question, worked = texts(f"gsm8k row {number}", row, "question", "answer")
            solution, marker, answer = worked.rpartition("####")
            if not marker or not answer.strip():
                raise ValueError(f"gsm8k row {number}: `answer` does not end in a line '#### ..'")
            if calculations == "remove":
                solution = _CALCULATION.sub("", solution)
            yield worked_row(template, question, solution, answer.strip().replace(",", ""))


def _read(text: str) -> tuple[list[Fraction], list[str]] | None:
    """The numbers of a short text and what stands before, between and behind them; None without
    numbers or beyond limits."""
    if len(text) > LONGEST:
        return None
    text = without_words(text)
    for latex, plain in _LATEX:
        text = text.replace(latex, plain)
    text = _RATE.sub(" ", _FRACTION.sub(r"\1/\2", markup.untyped(text)))
    text = re.sub(r"(?<=\w)\*\*(?=[\s.,;]|\Z)", "", text).strip(" *_`")
    found, pieces, last = [], list[str](), 0
    for match in _NUMBER.finditer(text):
        whole, part, below = (match[name] or "" for name in ("whole", "part", "below"))
        if not whole and not part:
            continue
        if len(whole + part + below) > MOST_DIGITS or (below and not int(below)):
            return None
        pieces.append(text[last : match.start()])
        last = match.end()
        value = Fraction((whole.replace(",", "") or "0") + part) / Fraction(below or 1)
        found.append(-value if match["minus"] or match["minus2"] else value)
    return (found, [*pieces, text[last:]]) if found else None


def _final(answer: Answer) -> tuple[str, int, str] | None:
    """The final answer, where it ends, and the mark that it stands behind."""
    tag = final_tag(answer)
    if tag:
        box = last_boxed(tag[0])
        inner = box[0] if box and tag[0].count("\\boxed{") == 1 else tag[0]
        return (inner, tag[1], OPEN) if inner else None
    said = spoken(answer)
    _, marker, rest = said.rpartition(MARK)
    if marker:
        rest = rest.lstrip(" \n*_`")
        line = rest.split("\n")[0].rstrip(" *_`\r")
        end = len(said.rstrip(" ")) if not line else len(said) - len(rest) + len(line)
        boxed = _BOXED.fullmatch(line)
        given = end <= len(answer.hint) or not line
        return None if given else (boxed[1] if boxed else line.strip(), end, MARK)
    final = final_box(answer)
    return (*final, "\\boxed{") if final else None


def _sprayed(said: str) -> bool:
    """Whether answers are tried out: more than two different ones, or two in the last line."""
    pieces = [piece.split("\n") for piece in said.split(MARK)]
    tried = {piece[0].strip() for piece in pieces[1:]} - {""}
    in_a_line = len(pieces) > 2 and len(pieces[-2]) == 1 and any(map(str.isdigit, pieces[-2][0]))
    return len(tried) > MOST_MARKED or in_a_line


def _gold(facts: Mapping[str, Any]) -> Fraction:
    given = facts.get("answer")
    given = facts.get("target") if given is None else given
    if not isinstance(given, bool) and isinstance(given, (int, float, str)):
        text = repr(given) if isinstance(given, float) else str(given)
        read = _read(text.rpartition("####")[2])
        if read and len(read[0]) == 1:
            return read[0][0]
    raise ValueError(
        "gsm8k needs the column `answer` (or `target`): a number, or a solution that ends in '#### 18';"
        f" got {given!r}"
    )
