r"""Mathematics: is the final answer the right one, however it is written?

`equivalent`, our rules: the final answer is the last \boxed{..} or `<answer> .. </answer>` of the
response, compared as text and then as mathematics, by math-verify (sympy). Only one answer counts:
several values are wrong unless the right answer is such a list; of an equation, only "a name = value" is
read as its value.

`authors`, the scorer of Liu et al. (arXiv 2505.16984): the last tag on the last line, compared as a
string after the normalisation of MATH.

Problems (`rows`) are rows of MATH, their solutions cut into sentences.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal

from onestage.rollout.rewards import Answer
from onestage.rollout.rewards import _math_normal_form as hendrycks
from onestage.rollout.rewards._checker import Checker, NotJudged
from onestage.rollout.rewards._final_answer import (
    OPEN,
    final_box,
    final_tag,
    last_boxed,
    last_tag,
    on_last_line,
    spoken,
    stand,
)
from onestage.rollout.rewards._markup import unmarked
from onestage.rollout.rewards._math_compare import same
from onestage.rollout.rewards._math_parts import bracket, each
from onestage.rollout.rewards._math_spelling import unstyled
from onestage.rollout.rewards._problems import Row, Template, texts, worked_row
from onestage.rollout.rewards._second_thoughts import denied, taken_back

LONGEST = 1000
"""Characters of a final answer; longer ones are not read."""
DEEPEST = 30
"""Of brackets."""
_DELIMITERS = re.compile(r"(?<!\\)\$|\\\(|\\\)|\\\[|\\\]")
_PHRASE = re.compile(
    r"(?:(?:therefore|so|thus|hence|then)[,:]?\s+)?(?:the\s+)?(?:final\s+)?answer\s*(?:is|:)\s*:?\s*:?|=",
    re.IGNORECASE,
)
_DOUBLED = re.compile(
    r"(?<!\\)\\\\(?=(?:[dt]?frac|sqrt|pi|text|cdot|times|left|right|pm)(?![a-z]))"
)
"""A backslash that was escaped, as in JSON; two of a matrix stand before no command."""
_GOES_ON = re.compile(r"(?<=[,\s])(?:\.\.\.|\u2026)\s*\Z")
_BOXES = re.compile(r"\\boxed\s*\{([^{}]*)\}")
_NEXT_BOX = re.compile(
    r"[\s$.,;*]*(?:and\b|\u548c)?[\s$*]*(?:\(?[a-z]\)|[a-zA-Z]\w?\s*=|part\s+\(?[a-z]\)?:?)?[\s$*:]*",
    re.IGNORECASE,
)
"""Between boxes that are parts of one answer: a comma, `and`, the letter of a part."""
_DOUBLED_BOX = re.compile(r"\\\\boxed(?=\s*\{)")
MOST_BOXES = 2
"""Different ones: an answer and what it replaces. More are a spray of guesses."""
_BEGUN = re.compile(r"\A\s*(?:#{1,6}|\*|=>|\u21d2)\s+|[.\s]+I hope (?:it|this) is correct\W*\Z")
_RULE = re.compile(r"[-*_=`~]{3,}\w*|`+")
"""A line across the page, or of a fence."""
_EXPLOSIVE = re.compile(
    r"\d{60}|(?:\^|\*\*)[\s{(]*-?(?:\d{5}|\d+\s*(?:\^|\*\*))"
    r"|\d{5}[\s})]*!|!\s*!\s*!|[)}\d]\s*!\s*[)}]+\s*!"
)
"""Numbers that would take for ever to write out: 9^{9^9}, 99999!."""
_OPENING, _CLOSING = "{([", "})]"


@dataclass(frozen=True)
class Math(Checker):
    format_reward: float = 0.1
    """Of a final answer that can be read but is wrong."""
    rules: Literal["equivalent", "authors"] = "equivalent"
    final: Literal["marked", "last_line"] = "marked"
    """Where a response has neither box nor tag: no answer, or its last line."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rules == "authors" and self.final != "marked":
            raise ValueError(
                f"final: {self.final} changes nothing under rules: authors; take it out"
            )

    def prepare(self) -> None:
        if self.rules == "equivalent":
            _verifier()

    def judge(self, answer: Answer) -> float:
        gold = _gold(answer.facts)
        if self.rules == "authors":
            text = on_last_line(answer)
            if text is None:
                return 0.0
            return 1.0 if hendrycks.equivalent(text, gold) else self.format_reward
        if _boxes_of_a_list(answer, gold):
            return 1.0
        marked = self._marked(answer)
        final = _clean(marked[0]) if marked else self._last_line(answer)
        if final is None or len(final) > LONGEST or not final or not _balanced(final):
            return 0.0
        if len(set(_BOXES.findall(answer.completion))) > MOST_BOXES:
            raise NotJudged(f"{MOST_BOXES + 1} different boxes and more")
        if "\\boxed" in final:  # beside what else is marked
            return self.format_reward
        if not _within_limits(final):
            return 0.0
        verdict = same(final, gold, _parsed, _verified)
        if verdict is None:
            raise NotJudged(f"{final[:60]!r} may or may not mean {gold[:60]!r}")
        if verdict and marked:
            stand(answer, marked[:2], marked[2], several_tags=False)
        return 1.0 if verdict else self.format_reward

    def check(self, facts: Mapping[str, Any]) -> None:
        _gold(facts)

    @classmethod
    def rows(
        cls, data: Iterable[Mapping[str, Any]], *, template: Template = "tinyzero"
    ) -> Iterator[Row]:
        r"""Rows of MATH (problem, solution) as problems.

        `data`: rows with `problem` and `solution`, the answer in its last \boxed{..}.
        """
        for number, row in enumerate(data, 1):
            problem, solution = texts(f"math row {number}", row, "problem", "solution")
            answer = boxed(solution)
            if not answer:
                raise ValueError(f"math row {number}: `solution` has no \\boxed{{..}}")
            yield worked_row(template, problem, solution, answer)

    def _marked(self, answer: Answer) -> tuple[str, int, str] | None:
        """What the last box or tag holds, where that ends, and the mark that begins it."""
        tag, box = final_tag(answer), final_box(answer)
        if tag and (not box or tag[1] > box[1]):
            inner = last_boxed(tag[0])
            boxes = tag[0].count("\\boxed{")
            return (inner[0] if inner and boxes == 1 else tag[0], tag[1], OPEN)
        return (*box, "\\boxed{") if box else None

    def _last_line(self, answer: Answer) -> str | None:
        if self.final == "marked" or not answer.completion.strip():
            return None
        lines = [
            _clean(_BEGUN.sub("", line) if len(line) <= LONGEST else line)
            for line in spoken(answer).split("\n")
        ]
        return next((line for line in reversed(lines) if line and not _RULE.fullmatch(line)), None)


def _clean(text: str) -> str:
    """Without the marks of a formula, a phrase before it and a full stop behind it."""
    text = _DOUBLED.sub(r"\\", re.sub(r"\s*\n\s*", " ", text))
    text = unstyled(_DELIMITERS.sub("", unmarked(text)))
    text = _GOES_ON.sub(r"\\ldots", text)
    text = _PHRASE.sub("", text, count=1) if _PHRASE.match(text) else text
    return unstyled(text.strip().rstrip(".,;\u3002"))


def _balanced(text: str) -> bool:
    """Braces in order: nothing breaks out of the box that it is read in."""
    depth = 0
    for brace in re.findall(r"\\[\\{}]|[{}]", text):
        depth += {"{": 1, "}": -1}.get(brace, 0)
        if not 0 <= depth <= DEEPEST:
            return False
    return depth == 0


def _nesting(text: str) -> int:
    depth = deepest = 0
    for character in text:
        depth += (character in _OPENING) - (character in _CLOSING)
        deepest = max(deepest, depth)
    return deepest


def _within_limits(text: str) -> bool:
    """Nothing in it would take for ever to read."""
    plain = re.sub(r"\\(?:left|right)|[\s]", "", text)
    return text.isprintable() and _nesting(plain) <= DEEPEST and not _EXPLOSIVE.search(plain)


def _parsed(text: str) -> list[Any]:
    return _parse(text.strip())


def _verified(gold: Any, final: Any) -> bool:
    return bool(_verifier()[1](gold, final, timeout_seconds=None))


@lru_cache(maxsize=256)
def _parse(text: str) -> list[Any]:
    parse, _, extraction = _verifier()
    return parse(
        f"\\boxed{{{text}}}",
        extraction_config=extraction,
        fallback_mode="no_fallback",
        parsing_timeout=None,  # ours is the deadline of the pool
    )


@lru_cache(maxsize=1)
def _verifier() -> tuple[Any, Any, Any]:
    """math-verify; it brings sympy, so it is imported where it is used."""
    try:
        from math_verify import LatexExtractionConfig, parse, verify
    except ImportError as error:
        raise ValueError("reward math needs math-verify: pip install 'onestage[math]'") from error
    # They log every text of a model that is no mathematics.
    for name in ("math_verify", "latex2sympy2_extended"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return parse, verify, [LatexExtractionConfig(boxed_match_priority=0)]


def _gold(facts: Mapping[str, Any]) -> str:
    given = facts.get("answer")
    given = facts.get("target") if given is None else given
    if not isinstance(given, bool) and isinstance(given, (str, int, float)):
        text = _DOUBLED_BOX.sub(r"\\boxed", str(given))
        tag, line = last_tag(text), text.rpartition("####")
        text = tag[0] if tag else line[2] if line[1] else text
        box = last_boxed(text)
        several = [*_BOXES.finditer(text)]
        if len({one[1] for one in several}) > 1:
            between = [text[a.end() : b.start()] for a, b in pairwise(several)]
            if not all(_NEXT_BOX.fullmatch(one) for one in between):
                raise ValueError(
                    f"math needs one right answer, got {len(several)} boxes: {str(given)[:100]!r}; "
                    "write a list as one, as in 1, 2"
                )
            text = ", ".join(one[1] for one in several)
        else:
            text = box[0] if box else boxed(text) or text
        text = _clean(text)
        if text and len(text) <= LONGEST and text.lower() != "nan":
            return text
    raise ValueError(
        "math needs the column `answer` (or `target`): the right answer, as text or a number;"
        f" got {str(given)[:100]!r}"
    )


def _boxes_of_a_list(answer: Answer, gold: str) -> bool:
    """Whether a response marks each part of the right answer, a list, on its own: in as many boxes as it
    has parts, one behind the other, and no others."""
    parts = each(gold)
    said = spoken(answer)
    found = [*_BOXES.finditer(said)] if len(parts) > 1 and not bracket(gold) else []
    if len(found) != len(parts) or any(one.start() < len(answer.hint) for one in found):
        return False
    between = [said[a.end() : b.start()] for a, b in pairwise(found)]
    if not all(_NEXT_BOX.fullmatch(text) for text in between):
        return False
    final = ", ".join(one[1] for one in found)
    if denied(said[: found[0].start()]) or taken_back(said[found[-1].end() :], final):
        return False
    return _within_limits(final) and same(final, gold, _parsed, _verified) is True


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
