"""Knights and knaves: who tells the truth and who lies?

`exact`, our rules: the last `<answer> .. </answer>` names everybody exactly once, with one role each,
and says nothing else.

`authors`, the scorer of Liu et al. (arXiv 2505.16984): "knight" and "knave" must occur as often together
as there are people, and "NAME is a knight|knave" be found for each; whatever else stands there is free.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from onestage.rollout.rewards import Answer
from onestage.rollout.rewards._checker import Checker
from onestage.rollout.rewards._final_answer import authors_tag, behind_header, final_tag

LONGEST = 5000
"""Characters of an answer."""


_PIECES = re.compile(r"[\n,;.]|\band\b", re.IGNORECASE)


_NUMBER = re.compile(r"\s*(?:[(\[]?\d{1,3}[)\].:]|[-*•])\s*")


_STATEMENT = re.compile(
    r"(.+?)(?:\s+is\s+|\s*[:=]\s*)(?:an?\s+|the\s+)?(knight|knave)", re.IGNORECASE
)


@dataclass(frozen=True)
class KnightsKnaves(Checker):
    format_reward: float = 0.1
    """Of statements that can be read but are not the answer."""
    rules: Literal["exact", "authors"] = "exact"

    def judge(self, answer: Answer) -> float:
        truth = _truth(answer.facts)
        if self.rules == "authors":
            return self._as_authors(answer, truth)
        found = final_tag(answer)
        stated = _statements(found[0]) if found else []
        if not stated:
            return 0.0
        people = {name.casefold(): role for name, role in truth.items()}
        right = len(stated) == len(people) and dict(stated) == people
        return 1.0 if right else self.format_reward

    def _as_authors(self, answer: Answer, truth: Mapping[str, bool]) -> float:
        text = authors_tag(behind_header(answer) or "")
        if not text:
            return 0.0
        lowered = text.lower()
        if lowered.count("knight") + lowered.count("knave") != len(truth):
            return self.format_reward
        for name, knight in truth.items():
            role = re.search(rf"\b{re.escape(name)}\b\s+is\s+a\s+\b(knight|knave)\b", text, re.I)
            if role is None or (role[1].lower() == "knight") != knight:
                return self.format_reward
        return 1.0

    def check(self, facts: Mapping[str, Any]) -> None:
        _truth(facts)


def _statements(text: str) -> list[tuple[str, bool]]:
    """Who is said to be a knight; nothing where anything else is said."""
    if len(text) > LONGEST:
        return []
    stated = []
    for piece in _PIECES.split(text.replace("**", "")):
        numbered = _NUMBER.match(piece)
        said = piece[numbered.end() :].strip() if numbered else piece.strip()
        if not said or said.isdecimal():
            continue
        match = _STATEMENT.fullmatch(" ".join(said.split()))
        if match is None:
            return []
        stated.append((match[1].casefold(), match[2].lower() == "knight"))
    return stated


def _truth(facts: Mapping[str, Any]) -> dict[str, bool]:
    names, truth = facts.get("names"), facts.get("truth")
    if truth is None:
        truth = facts.get("solution")  # the authors' column
    if truth is None and isinstance(facts.get("solution_text_format"), str):
        told = _statements(facts["solution_text_format"])
        names, truth = [name for name, _ in told], [role for _, role in told]
    listed = isinstance(names, (list, tuple)) and isinstance(truth, (list, tuple))
    people = list(zip(names or (), truth or (), strict=False)) if listed else []
    known = {name.casefold() for name, _ in people if isinstance(name, str) and name.strip()}
    whole = len(known) == len(people) == len(names or ()) == len(truth or ())
    if not people or not whole or not all(role in (True, False) for _, role in people):
        raise ValueError(
            "knights_knaves needs the columns `names`, different names, and `truth` (or `solution`), a"
            f" true or false for each; got names {names!r}, truth {truth!r}"
        )
    return {name: bool(role) for name, role in people}
