"""Knights and knaves: knights always tell the truth, knaves always lie; who is what?

Everybody makes one claim about the others. A puzzle is kept when exactly one assignment of roles agrees
with all claims, which is found by trying all of them. The worked solution assumes a role for one person
after the other, looks for a contradiction with the claims whose truth is then known, and goes back
where there is one.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from onestage.rollout.rewards._problems import Row, Split, Template, different, make_row

NAMES = (
    "Aiden Amelia Avery Benjamin Charlotte Chloe Daniel David Ella Emily Ethan Evelyn Grace Harper Henry"
    " Isabella Jack Jacob James Joseph Liam Logan Lucas Luke Lily Mason Matthew Mia Michael Noah Oliver"
    " Olivia Owen Penelope Samuel Scarlett Sebastian Sofia Victoria William Zoey"
).split()


MOST_PEOPLE = 8


EXAMPLE = "(1) Zoey is a knight\n(2) Oliver is a knave"


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
            return f"{names[self.person]} is a {_role(self.knight)}"
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


def generate(
    count: int,
    *,
    seed: int = 0,
    split: Split = "train",
    people: tuple[int, int] = (2, 4),
    kinds: Sequence[Kind] = KINDS,
    template: Template = "tinyzero",
) -> Iterator[Row]:
    """Different puzzles of a split; the same for the same arguments.

    `people`: how many, from and to. `kinds`: what claims are made of. Rows have `names` and `truth`
    (whether each is a knight). Puzzles that differ in names, or in the order of people or of the two
    sides of an "and", are the same one for the split. `ValueError` where there are not as many.
    """
    if not 2 <= people[0] <= people[1] <= MOST_PEOPLE:
        raise ValueError(f"people: needs 2 <= from <= to <= {MOST_PEOPLE}, got {people}")
    if not kinds or set(kinds) - set(KINDS):
        raise ValueError(f"kinds {list(kinds)}: allowed are some of {', '.join(KINDS)}")
    return different(count, split, _draws(random.Random(seed), people, tuple(kinds), template))


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


def _draws(
    draw: random.Random, people: tuple[int, int], kinds: tuple[Kind, ...], template: Template
) -> Iterator[tuple[str, Callable[[], Row]] | None]:
    while True:
        size = draw.randint(*people)
        claims = [_claim(draw, who, size, kinds) for who in range(size)]
        names = draw.sample(NAMES, size)
        found = solutions(claims)
        if len(found) != 1:
            yield None
            continue
        yield content(claims), _maker(names, claims, found[0], template)


def _claim(draw: random.Random, who: int, size: int, kinds: Sequence[Kind]) -> Claim:
    """What one of the people says: about others, each part about a different one where possible."""
    others = [person for person in range(size) if person != who]
    kind = draw.choice(kinds)
    pair = kind in ("and", "or", "if", "iff")
    # Of two people, a claim of two parts is about both.
    about = draw.sample(others if len(others) > 1 or not pair else range(size), 1 + pair)
    parts = tuple(Claim("is", person, draw.random() < 0.5) for person in about)
    return parts[0] if kind == "is" else Claim(kind, parts=parts)


def _maker(
    names: list[str], claims: list[Claim], roles: tuple[bool, ...], template: Template
) -> Callable[[], Row]:
    def make() -> Row:
        listed = ", ".join(names[:-1]) + f" and {names[-1]}"
        said = [f"{name} says that {c.text(names)}." for name, c in zip(names, claims, strict=True)]
        verdict = [
            f"({i}) {name} is a {_role(role)}"
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

    return make


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
        told.append(f"Assume {names[who]} is a {_role(role)}. ")
        against = [i for i in now if claims[i].truth(now) not in (None, now[i])]
        if against:
            speaker = against[-1]
            is_what = "true" if claims[speaker].truth(now) else "false"
            told.append(
                f"Contradiction: the claim of {names[speaker]}, a {_role(now[speaker])}, that"
                f" {claims[speaker].text(names)} would be {is_what}.\n"
            )
            continue
        told.append("No contradiction is found.\n")
        if _search(now, names, claims, told):
            return True
    if roles:
        last = names[who - 1]
        told.append(f"So {names[who]} can be neither, and {last} is no {_role(roles[who - 1])}.\n")
    return False


def _role(knight: bool) -> str:
    return "knight" if knight else "knave"
