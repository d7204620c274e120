"""Were the verifiable instructions of a prompt followed? (IFEval, Zhou et al., arXiv 2311.07911)

Rows are those of the data set: `instruction_id_list`, and `kwargs`, one mapping for each of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from onestage.rollout.rewards import Answer
from onestage.rollout.rewards import _ifeval_rules as instructions
from onestage.rollout.rewards._checker import Checker

LONGEST = 200_000
"""Characters of a response; longer ones follow nothing."""


@dataclass(frozen=True)
class IFEval(Checker):
    level: Literal["prompt", "instruction"] = "prompt"
    """1 if all instructions were followed, else 0; or the share of them that were."""
    reading: Literal["strict", "loose"] = "strict"
    """loose: also without its first line, its last line, its asterisks, whichever of the eight
    versions follows the instruction (section 3 of the paper)."""

    def judge(self, answer: Answer) -> float:
        asked = _asked(answer.facts)
        text = answer.response
        if len(text) > LONGEST:
            return 0.0
        versions = _versions(text) if self.reading == "loose" else [text]
        done = [
            any(instructions.followed(name, arguments, version) for version in versions)
            for name, arguments in asked
        ]
        share = sum(done) / len(done)
        return share if self.level == "instruction" else float(share == 1)

    def check(self, facts: Mapping[str, Any]) -> None:
        for name, arguments in _asked(facts):
            instructions.check(name, arguments)


def _versions(text: str) -> list[str]:
    lines = text.split("\n")
    found = []
    for first, last, stars in product((0, 1), (0, 1), (True, False)):
        part = "\n".join(lines[first : len(lines) - last]).strip()
        found.append(part if stars else part.replace("*", ""))
    return found


def _asked(facts: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    names, arguments = facts.get("instruction_id_list"), facts.get("kwargs")
    listed = isinstance(names, (list, tuple)) and isinstance(arguments, (list, tuple))
    asked = list(zip(names or (), arguments or (), strict=False)) if listed else []
    whole = len(asked) == len(names or ()) == len(arguments or ())
    if not asked or not whole or not all(isinstance(each, Mapping) for _, each in asked):
        raise ValueError(
            "ifeval needs the columns `instruction_id_list` and `kwargs`, lists of one length;"
            f" got {names!r} and {arguments!r}"
        )
    return [(str(name), dict(each)) for name, each in asked]
