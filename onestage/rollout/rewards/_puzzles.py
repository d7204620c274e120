"""Puzzles of knights, who always tell the truth, and knaves, who always lie: drawn and reasoned out.

Everybody makes one claim about the others. A puzzle is kept when exactly one assignment of roles agrees
with all claims, which is found by trying all of them. The worked solution assumes a role for one person
after the other, looks for a contradiction with the claims whose truth is then known, and goes back
where there is one.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

NAMES = (
    "Aiden Amelia Avery Benjamin Charlotte Chloe Daniel David Ella Emily Ethan Evelyn Grace Harper Henry"
    " Isabella Jack Jacob James Joseph Liam Logan Lucas Luke Lily Mason Matthew Mia Michael Noah Oliver"
    " Olivia Owen Penelope Samuel Scarlett Sebastian Sofia Victoria William Zoey"
).split()
Kind = Literal["is", "not", "and", "or", "if", "iff"]
KINDS: tuple[Kind, ...] = ("is", "not", "and", "or", "if", "iff")


class Claim(NamedTuple):
    kind: Kind
    person: int = 0
    knight: bool = True
    parts: tuple[Claim, ...] = ()

    def truth(self, roles: Mapping[int, bool]) -> bool | None:
        """Under the roles that are known; None where they do not settle it."""
        if self.kind == "is":
            role = roles.get(self.person)
            return None if role is None else role == self.knight
        left, *rest = [part.truth(roles) for part in self.parts]
        if self.kind == "not":
            return None if left is None else not left
        right = rest[0]
        if self.kind == "iff":
            return None if left is None or right is None else left == right
        if self.kind == "if":
            left = None if left is None else not left
        settling = self.kind != "and"  # one true part settles an "or", one false part an "and"
        if settling in (left, right):
            return settling
        return None if left is None or right is None else not settling

    def text(self, names: Sequence[str]) -> str:
        if self.kind == "is":
            return f"{names[self.person]} is a {role_name(self.knight)}"
        said = [part.text(names) for part in self.parts]
        if self.kind == "not":
            return f"it is not true that {said[0]}"
        if self.kind == "if":
            return f"if {said[0]} then {said[1]}"
        return {"and": " and ", "or": " or ", "iff": " if and only if "}[self.kind].join(said)

    def form(self, colours: Sequence[str]) -> str:
        """Its text with people by their colours, the same whichever way round."""
        if self.kind == "is":
            return f"{colours[self.person]}{self.knight}"
        said = [part.form(colours) for part in self.parts]
        return f"{self.kind}({','.join(said if self.kind == 'if' else sorted(said))})"


class Puzzle(NamedTuple):
    """People, what each of them claims, and who is a knight."""

    names: Sequence[str]
    claims: Sequence[Claim]
    roles: tuple[bool, ...]


def solutions(claims: Sequence[Claim]) -> list[tuple[bool, ...]]:
    """All assignments of roles that agree with what everybody claims."""
    everything = itertools.product((True, False), repeat=len(claims))
    return [
        roles
        for roles in everything
        if all(
            claim.truth(dict(enumerate(roles))) == role
            for claim, role in zip(claims, roles, strict=True)
        )
    ]


def content(claims: Sequence[Claim]) -> str:
    """The same text for puzzles that differ only in who is called what and who stands where.

    People are coloured by what they say, about people of which colours, again and again. Different
    puzzles may share it now and then, which costs one of them and keeps the splits apart.
    """
    colours = ["person"] * len(claims)
    for _ in claims:
        said = [
            claim.form([f"{c}{'self' if i == who else ''}" for i, c in enumerate(colours)])
            for who, claim in enumerate(claims)
        ]
        colours = [hashlib.sha256(text.encode()).hexdigest() for text in said]
    return f"knights_knaves {sorted(colours)}"


def draw_puzzle(draw: random.Random, size: int, kinds: Sequence[Kind]) -> Puzzle | None:
    """A puzzle of so many people; None where it does not have exactly one solution."""
    claims = [_claim(draw, who, size, kinds) for who in range(size)]
    names = draw.sample(NAMES, size)
    found = solutions(claims)
    return Puzzle(names, claims, found[0]) if len(found) == 1 else None


def _claim(draw: random.Random, who: int, size: int, kinds: Sequence[Kind]) -> Claim:
    """What one of the people says: about others, each part about a different one where possible."""
    others = [person for person in range(size) if person != who]
    kind = draw.choice(kinds)
    pair = kind in ("and", "or", "if", "iff")
    # Of two people, a claim of two parts is about both.
    about = draw.sample(others if len(others) > 1 or not pair else range(size), 1 + pair)
    parts = tuple(Claim("is", person, draw.random() < 0.5) for person in about)
    return parts[0] if kind == "is" else Claim(kind, parts=parts)


def reasoning(names: Sequence[str], claims: Sequence[Claim]) -> list[str]:
    """The search for the roles, in sentences; it ends where all are found."""
    told: list[str] = []
    if not _search({}, names, claims, told):
        raise ValueError("no roles agree with all claims")
    return told


def _search(
    roles: dict[int, bool], names: Sequence[str], claims: Sequence[Claim], told: list[str]
) -> bool:
    who = len(roles)
    if who == len(names):
        return True
    for role in (True, False):
        now = {**roles, who: role}
        told.append(f"Assume {names[who]} is a {role_name(role)}. ")
        against = [i for i in now if claims[i].truth(now) not in (None, now[i])]
        if against:
            speaker = against[-1]
            is_what = "true" if claims[speaker].truth(now) else "false"
            told.append(
                f"Contradiction: the claim of {names[speaker]}, a {role_name(now[speaker])}, that"
                f" {claims[speaker].text(names)} would be {is_what}.\n"
            )
            continue
        told.append("No contradiction is found.\n")
        if _search(now, names, claims, told):
            return True
    if roles:
        last = names[who - 1]
        told.append(
            f"So {names[who]} can be neither, and {last} is no {role_name(roles[who - 1])}.\n"
        )
    return False


def role_name(knight: bool) -> str:
    return "knight" if knight else "knave"
