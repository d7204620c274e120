"""Were the verifiable instructions of a prompt followed? (IFEval, Zhou et al., arXiv 2311.07911)

Rows are those of the data set: `instruction_id_list`, and `kwargs`, one mapping for each of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from onestage.rollout.rewards import Answer
from onestage.rollout.rewards import _ifeval_arguments as arguments
from onestage.rollout.rewards import _ifeval_benchmark as benchmark
from onestage.rollout.rewards import _ifeval_rules as instructions
from onestage.rollout.rewards._checker import Checker, NotJudged
from onestage.rollout.rewards._markup import thought_over

LONGEST = 200_000
"""Characters of a response; longer ones follow nothing."""


@dataclass(frozen=True)
class IFEval(Checker):
    rules: Literal["careful", "compat"] = "careful"
    """careful: as a careful reader would judge, fit to be a reward; where readers would differ, an
    answer is not judged. compat: the benchmark's own verdict, by the checkers of `lm-eval`, to compare
    scores by."""
    level: Literal["prompt", "instruction"] = "prompt"
    """1 if all instructions were followed, else 0; or the share of them that were."""
    reading: Literal["strict", "loose"] = "strict"
    """loose: also without its first line, its last line, its asterisks, whichever of the eight
    versions follows the instruction (section 3 of the paper)."""

    def judge(self, answer: Answer) -> float:
        asked = _asked(answer.facts)
        if len(answer.response) > LONGEST:
            return 0.0
        loose = self.reading == "loose"
        done: list[bool | None] = (
            [*benchmark.followed(asked, answer.prompt, answer.response, loose)]
            if self.rules == "compat"
            else _followed(asked, answer, loose)
        )
        if self.level == "prompt" and False in done:
            return 0.0
        if None in done:
            unclear = next(
                name for (name, _), each in zip(asked, done, strict=True) if each is None
            )
            raise NotJudged(f"followed or not, {unclear}: readers would differ")
        return sum(map(bool, done)) / len(done)

    def check(self, facts: Mapping[str, Any]) -> None:
        asked = _asked(facts)
        arguments.check(asked)
        if self.rules == "compat":
            benchmark.check(asked)

    def prepare(self) -> None:
        if self.rules == "compat":
            benchmark.load()


def _followed(
    asked: list[tuple[str, dict[str, Any]]], answer: Answer, loose: bool
) -> list[bool | None]:
    """By our rules. What is said while thinking is a draft."""
    spoken = thought_over(answer.response, answer.prompt)
    text = "" if spoken is None else answer.response[spoken:]
    found: list[bool | None] = []
    for name, given in asked:
        verdicts = [
            instructions.followed(name, given, version)
            for version in (_versions(text) if loose else [text])
        ]
        found.append(True if True in verdicts else None if None in verdicts else False)
    return found


def _versions(text: str) -> list[str]:
    lines = text.split("\n")
    found = []
    for first, last, stars in product((0, 1), (0, 1), (True, False)):
        part = "\n".join(lines[first : len(lines) - last]).strip()
        found.append(part if stars else part.replace("*", ""))
    return found


def _asked(facts: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Each instruction with its own arguments: in a table, those of all others are there as nulls."""
    names, given = facts.get("instruction_id_list"), facts.get("kwargs")
    listed = isinstance(names, (list, tuple)) and isinstance(given, (list, tuple))
    asked = list(zip(names or (), given or (), strict=False)) if listed else []
    whole = len(asked) == len(names or ()) == len(given or ())
    if not asked or not whole or not all(isinstance(each, Mapping) for _, each in asked):
        raise ValueError(
            "ifeval needs the columns `instruction_id_list` and `kwargs`, lists of one length;"
            f" got {names!r} and {given!r}"
        )
    return [(str(name), _own(str(name), each)) for name, each in asked]


def _own(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    known = instructions.RULES[name][1] if name in instructions.RULES else {}
    return {key: given[key] for key in known if key in given}
