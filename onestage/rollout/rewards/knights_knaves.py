"""Knights and knaves: who tells the truth and who lies?

`exact`, our rules: the last `<answer> .. </answer>` names everybody exactly once, with one role each,
and says nothing else.

`authors`, the scorer of Liu et al. (arXiv 2505.16984): "knight" and "knave" must occur as often together
as there are people, and "NAME is a knight|knave" be found for each; whatever else stands there is free.

Problems (`rows`) are puzzles with exactly one solution, reasoned out step by step (`_puzzles`).
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

from onestage.rollout.rewards import Answer
from onestage.rollout.rewards import _markup as markup
from onestage.rollout.rewards._checker import Checker
from onestage.rollout.rewards._final_answer import (
    OPEN,
    authors_tag,
    behind_header,
    final_tag,
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
from onestage.rollout.rewards._puzzles import (
    KINDS,
    Kind,
    Puzzle,
    content,
    draw_puzzle,
    reasoning,
    role_name,
)

LONGEST = 5000
"""Characters of an answer."""
MOST_PEOPLE = 8
EXAMPLE = "(1) Zoey is a knight\n(2) Oliver is a knave"
_PIECES = re.compile(r"[\n,;.!&]|\b(?:and|but|while|whereas)\b", re.IGNORECASE)
_NUMBER = re.compile(r"(?:^|(?<=\s))[(\[]?\d{1,3}[)\].:](?=\s)|^\s*[-*•]\s")
_CONCLUDES = re.compile(r"^(?:therefore|thus|so|hence|then|finally)\b[\s:]*", re.IGNORECASE)
_REMARK = re.compile(
    r"\((?:always\s+)?(?:(?P<honest>tells?\s+the\s+truth|truth[- ]?teller)|lies|liar)\)",
    re.IGNORECASE,
)
_HEADING = re.compile(
    r"^\s*\|\s*(?:person|name|inhabitant|character|islander)\s*\|\s*(?:role|type|kind|identity)\s*\|\s*$"
    r"|^\s*\|[-:\s|]+\|\s*$",
    re.IGNORECASE | re.MULTILINE,
)
_ROW = re.compile(r"\|([^|\n]+)\|([^|\n]+)\|")
_STATEMENT = re.compile(
    r"(?P<name>.+?)(?:\s+is\s+|\s*(?:[-=]>|\u2192|[:=])\s*|\s+-\s+|\s*(?=\())(?:an?\s+|the\s+)?\(?(?P<role>knight|knave)\)?"
    r"|the\s+(?P<role2>knight|knave)\s+is\s+(?P<name2>.+)",
    re.IGNORECASE,
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
        stated = _statements(found[0], tuple(truth)) if found else []
        if not stated or found is None:
            return 0.0
        people = {_called(name): role for name, role in truth.items()}
        if len(stated) != len(people) or dict(stated) != people:
            return self.format_reward
        stand(answer, found, OPEN)
        return 1.0

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

    @classmethod
    def rows(
        cls,
        count: Count = 1000,
        *,
        people: Annotated[tuple[int, int], "How many: 3, or 2-4; at most 8."] = (2, 4),
        claims: Annotated[Sequence[Kind], "What is claimed, some of these."] = KINDS,
        seed: Seed = 0,
        split: Split = "train",
        template: Template = "tinyzero",
    ) -> Iterator[Row]:
        """Who tells the truth and who lies?

        Different puzzles of a split, the same for the same arguments, with the columns `names` and
        `truth` (whether each is a knight). Puzzles that differ in names, or in the order of people or of
        the two sides of an "and", are the same one for the split. `ValueError` where there are not as
        many.
        """
        if not 2 <= people[0] <= people[1] <= MOST_PEOPLE:
            raise ValueError(f"people: needs 2 <= from <= to <= {MOST_PEOPLE}, got {people}")
        if not claims or set(claims) - set(KINDS):
            raise ValueError(f"claims {list(claims)}: allowed kinds are some of {', '.join(KINDS)}")
        return different(count, split, _draws(random.Random(seed), people, tuple(claims), template))


def _called(name: str) -> str:
    """A name in one spelling, without what would end a statement: St. John is st john."""
    return " ".join(_PIECES.sub(" ", unicodedata.normalize("NFC", name)).split()).casefold()


def _statements(text: str, names: Sequence[str] = ()) -> list[tuple[str, bool]]:
    """Who is said to be a knight; nothing where anything else is said."""
    if len(text) > LONGEST:
        return []
    stated = []
    text = unicodedata.normalize("NFC", markup.unmarked(text))
    for name in names:
        if _PIECES.search(name):
            text = re.sub(
                re.escape(unicodedata.normalize("NFC", name)), _called(name), text, flags=re.I
            )
    text = _ROW.sub(r"\1: \2\n", _HEADING.sub("", text))
    for line in text.split("\n"):
        for piece in _PIECES.split(_NUMBER.sub(",", line)):
            remarks = {bool(found["honest"]) for found in _REMARK.finditer(piece)}
            said = _CONCLUDES.sub("", " ".join(_REMARK.sub("", piece).split()))
            if not said or said.isdecimal():
                continue
            match = _STATEMENT.fullmatch(said)
            if match is None:
                return []
            name, role = match["name"] or match["name2"], match["role"] or match["role2"]
            knight = role.lower() == "knight"
            if remarks - {knight}:  # a knight (liar)
                return []
            stated.append((_called(name), knight))
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
    known = {_called(name) for name, _ in people if isinstance(name, str) and name.strip()}
    whole = len(known) == len(people) == len(names or ()) == len(truth or ())
    if not people or not whole or not all(role in (True, False) for _, role in people):
        raise ValueError(
            "knights_knaves needs the columns `names`, different names, and `truth` (or `solution`), a"
            f" true or false for each; got names {names!r}, truth {truth!r}"
        )
    return {name: bool(role) for name, role in people}


def _draws(
    draw: random.Random, people: tuple[int, int], kinds: Sequence[Kind], template: Template
) -> Iterator[tuple[str, Callable[[], Row]] | None]:
    while True:
        puzzle = draw_puzzle(draw, draw.randint(*people), kinds)
        yield (content(puzzle.claims), partial(_row, puzzle, template)) if puzzle else None


def _row(puzzle: Puzzle, template: Template) -> Row:
    names, claims, roles = puzzle
    listed = ", ".join(names[:-1]) + f" and {names[-1]}"
    said = [f"{name} says that {c.text(names)}." for name, c in zip(names, claims, strict=True)]
    verdict = [
        f"({i}) {name} is a {role_name(role)}"
        for i, (name, role) in enumerate(zip(names, roles, strict=True), 1)
    ]
    lines = [f"{line}\n" for line in verdict[:-1]] + verdict[-1:]
    return make_row(
        template,
        "On an island live only knights, who always tell the truth, and knaves, who always lie. You"
        f" meet {len(names)} of its people: {listed}. {' '.join(said)} Who is a knight and who is a"
        " knave?",
        "".join(f"{name}: {c.text(names)}\n" for name, c in zip(names, claims, strict=True)),
        EXAMPLE,
        [*reasoning(names, claims), f"Therefore, {lines[0]}", *lines[1:]],
        "\n".join(verdict),
        names=names,
        truth=list(roles),
    )
