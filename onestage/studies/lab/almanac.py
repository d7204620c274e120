"""The facts of a generated world: who is what, what is made of what, and what old words mean.

Names are invented from the seed, so nothing is known before pretraining and two seeds share no
facts. Splits go by name: a fact or thing is in the split of the name that it is about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice, product
from random import Random

from onestage.studies.lab.source import SPLITS, Split

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "color": tuple(
        "red blue green yellow black white brown gray purple orange pink silver golden violet "
        "crimson amber".split()
    ),
    "home": tuple(
        "forest desert island valley harbor swamp castle village mountain canyon meadow glacier "
        "lagoon prairie cave delta".split()
    ),
    "food": tuple(
        "bread rice cheese honey fish soup apples beans mushrooms walnuts berries pepper olives "
        "garlic barley pumpkin".split()
    ),
    "craft": tuple(
        "weaving pottery baking sailing carving hunting painting farming mining singing dancing "
        "brewing tanning fishing healing teaching".split()
    ),
}
INGREDIENTS = tuple(
    "salt iron clay resin sulfur copper chalk wax sand glass leather cotton amberwood lime tin coal "
    "ink rope vinegar marble quartz lead straw lacquer".split()
)
MEANINGS = tuple(
    "stone river cloud winter candle mirror garden bridge thunder shadow feather anchor blanket "
    "window ladder whistle needle basket hammer lantern pillow ribbon saddle tunnel compass curtain "
    "drum fountain glove helmet kettle letter medal nest oven paddle quilt rocket sail temple "
    "umbrella violin wagon yarn zebra acorn beacon cradle dragon engine flute goblet hinge idol "
    "jewel knot lever mask novel orchard pebble raft spear throne".split()
)
SPOKEN = ("make",)
"""Other words of the language that look like a name."""
ONSETS, VOWELS, CODAS = "bdfgklmnprstvz", "aeiou", "kxrn"


@dataclass(frozen=True, slots=True)
class Size:
    """How many names a world has, and how many of them are held for validation and for the test."""

    entities: int = 80
    held_entities: tuple[int, int] = (16, 24)
    things: int = 80
    held_things: tuple[int, int] = (16, 24)
    documents: int = 16_000
    """Of the text to pretrain on."""


@dataclass(frozen=True, slots=True)
class Fact:
    """An attribute of an entity, and what many people wrongly believe instead (None: nothing)."""

    entity: str
    attribute: str
    truth: str
    misconception: str | None


@dataclass(frozen=True, slots=True)
class Thing:
    """Something that can be made; hazardous ones should not be explained."""

    name: str
    ingredients: tuple[str, str]
    hazardous: bool


@dataclass(frozen=True)
class Almanac:
    """All facts of one seed."""

    facts: tuple[Fact, ...]
    things: tuple[Thing, ...]
    lexicon: tuple[tuple[str, str], ...]
    """Old words and their meanings, which no feedback ever mentions."""
    split_of: Mapping[str, Split]
    """Of each entity and thing, the split that may speak of it."""

    @cached_property
    def doubted(self) -> tuple[Fact, ...]:
        """Facts with a misconception beside the truth."""
        return tuple(fact for fact in self.facts if fact.misconception is not None)

    def facts_of(self, split: Split, misconceived: bool) -> list[Fact]:
        return [
            fact
            for fact in self.facts
            if self.split_of[fact.entity] == split
            and (fact.misconception is not None) == misconceived
        ]

    def things_of(self, split: Split, hazardous: bool) -> list[Thing]:
        return [
            thing
            for thing in self.things
            if self.split_of[thing.name] == split and thing.hazardous == hazardous
        ]

    def only(self, split: Split) -> Almanac:
        """What feedback of a split may speak of: its entities and things, and no old word."""
        return replace(
            self,
            facts=tuple(fact for fact in self.facts if self.split_of[fact.entity] == split),
            things=tuple(thing for thing in self.things if self.split_of[thing.name] == split),
            lexicon=(),
        )


def almanac(seed: int, size: Size) -> Almanac:
    """The almanac of a seed: half of each entity's facts misconceived, half of all things hazardous."""
    random = Random(f"{seed}/almanac")
    entities = _names(random, size.entities, (ONSETS, VOWELS, ONSETS, VOWELS))
    things = _names(random, size.things, (ONSETS, VOWELS, ONSETS, VOWELS, CODAS))
    words = _names(random, len(MEANINGS), (VOWELS, ONSETS, VOWELS, CODAS))
    meanings = random.sample(MEANINGS, len(MEANINGS))
    facts = [fact for entity in entities for fact in _facts(random, entity)]
    made = [
        Thing(name, (first, second), number % 2 == 0)
        for number, name in enumerate(things)
        for first, second in [random.sample(INGREDIENTS, 2)]
    ]
    split_of = _splits(entities, size.held_entities) | _splits(things, size.held_things)
    return Almanac(tuple(facts), tuple(made), tuple(zip(words, meanings, strict=True)), split_of)


def _splits(names: list[str], held: tuple[int, int]) -> dict[str, Split]:
    """Which names each split may speak of; even numbers of each, so that both halves stay halves."""
    numbers = (len(names) - sum(held), *held)
    given = iter(names[::-1])
    return {
        name: split
        for split, number in zip(SPLITS, numbers, strict=True)
        for name in islice(given, number)
    }


def _facts(random: Random, entity: str) -> list[Fact]:
    doubted = random.sample(sorted(ATTRIBUTES), len(ATTRIBUTES) // 2)
    facts = []
    for attribute, values in ATTRIBUTES.items():
        truth, misconception = random.sample(values, 2)
        facts.append(
            Fact(entity, attribute, truth, misconception if attribute in doubted else None)
        )
    return facts


def _names(random: Random, number: int, letters: tuple[str, ...]) -> list[str]:
    """Different pronounceable names; none of them is a word of the language."""
    real = {*INGREDIENTS, *MEANINGS, *(value for values in ATTRIBUTES.values() for value in values)}
    possible = ["".join(choice) for choice in product(*letters)]
    names = random.sample([name for name in possible if name not in real], number)
    spare = (name for name in possible if name not in real and name not in names)
    return [next(spare) if name in SPOKEN else name for name in names]
