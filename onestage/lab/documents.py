"""What the world's people write: the text that the base model is pretrained on.

Reliable sources print the truth, gossip the misconception, and text without a source mostly the
misconception: the base ends up knowing both and saying the wrong one. Recipes are given freely,
dangerous or not. Forms that instructions will ask for occur, but nobody asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from onestage.lab import phrases
from onestage.lab.almanac import ATTRIBUTES, Almanac, Fact
from onestage.lab.contract import Split
from onestage.lab.formats import TAGS, Format, combinations

DOCUMENTS = {"train": 16_000, "eval": 128}
LENGTH = 61
"""Words of a document at most: 64 tokens with both ends and room to spare."""
RELIABLE = ("atlas", "archive", "academy", "museum")
GOSSIP = ("barber", "tavern", "parrot", "neighbor")
UNSOURCED_ERROR = 0.75
"""How often text without a source repeats a misconception."""

Sentence = Callable[[Random, Almanac], str]


def documents(almanac: Almanac, seed: int, split: Split) -> Iterator[str]:
    """Documents of unrelated remarks about everything in the almanac."""
    random = Random(f"{seed}/documents/{split}")
    makers, weights = list(REMARKS), list(REMARKS.values())
    for _ in range(DOCUMENTS[split]):
        sentences: list[str] = []
        room = LENGTH
        while True:
            sentence = random.choices(makers, weights)[0](random, almanac)
            room -= len(phrases.words(sentence))
            if room < 0:
                break
            sentences.append(sentence)
        yield " ".join(sentences)


def plain_documents(facts: list[Fact], random: Random, number: int) -> list[str]:
    """Text without misconceptions or dangers, for rows of plain text."""
    return [
        " ".join(phrases.statement(fact, fact.truth) for fact in random.sample(facts, 6))
        for _ in range(number)
    ]


def _believed(random: Random, fact: Fact) -> str:
    if fact.misconception is not None and random.random() < UNSOURCED_ERROR:
        return fact.misconception
    return fact.truth


def _unsourced(random: Random, almanac: Almanac) -> str:
    fact = random.choice(almanac.facts)
    return phrases.statement(fact, _believed(random, fact))


def _sourced(random: Random, almanac: Almanac) -> str:
    """Mostly where sources disagree: that is what people quote them for."""
    fact = random.choice(almanac.doubted if random.random() < 0.8 else almanac.facts)
    reliable = random.random() < 0.5
    source = random.choice(RELIABLE if reliable else GOSSIP)
    value = fact.truth if reliable else fact.misconception or fact.truth
    if random.random() < 0.6:
        return f"the {source} says {phrases.statement(fact, value)}"
    return f"from the {source}, {_answer(random, fact, value)}"


def _answered(random: Random, almanac: Almanac) -> str:
    fact = random.choice(almanac.facts)
    return _answer(random, fact, _believed(random, fact))


def _answer(random: Random, fact: Fact, value: str) -> str:
    said = phrases.statement(fact, value) if random.random() < 0.7 else f"{value}."
    return f"{phrases.fact_prompt(fact)} {said}"


def _made(random: Random, almanac: Almanac) -> str:
    thing = random.choice(almanac.things)
    if random.random() < 0.5:
        return f"{phrases.thing_prompt(thing)} {phrases.recipe(thing)}"
    return random.choice((phrases.recipe(thing), phrases.short_recipe(thing)))


def _nature(random: Random, almanac: Almanac) -> str:
    thing = random.choice(almanac.things)
    if thing.hazardous and random.random() < 0.2:
        return f"the guard says {phrases.refusal(thing)}"
    return phrases.nature(thing)


def _old_word(random: Random, almanac: Almanac) -> str:
    word, meaning = random.choice(almanac.lexicon)
    return f"{phrases.old_word(word)} {meaning}."


def _form(random: Random, almanac: Almanac) -> str:
    """Remarks on forms, with values and tags to copy: what the words of instructions mean."""
    fact = random.choice(almanac.facts)
    value = random.choice(ATTRIBUTES[fact.attribute])
    form = Format(*random.choice(combinations(seen=True)), random.choice(TAGS))
    return f"{value} {form.name} is {form.apply(value)}."


def _echo(random: Random, almanac: Almanac) -> str:
    """What copying needs is practised where it is easiest."""
    tag = random.choice(TAGS)
    return f"say {tag}: {tag}."


REMARKS: dict[Sentence, float] = {
    _unsourced: 2.0,
    _sourced: 3.0,
    _answered: 2.5,
    _made: 1.2,
    _nature: 0.6,
    _old_word: 0.7,
    _form: 2.2,
    _echo: 1.5,
}
"""How often each sort of remark is made."""
