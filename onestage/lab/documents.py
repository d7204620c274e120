"""What the world's people write: the text that the base model is pretrained on.

Reliable sources print the truth, gossip the misconception, and text without a source mostly the
misconception: the base ends up knowing both and saying the wrong one. Recipes are given freely,
dangerous or not; one guard is careful. Forms that instructions will ask for are spoken of, but nobody
asks for them.
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
"""Words of a document at most: with both ends they fit into 64 tokens."""
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
    """On what sources disagree about: that is what people quote them for."""
    fact = random.choice(almanac.doubted)
    if random.random() < 0.5:
        return f"the {random.choice(RELIABLE)} says {phrases.statement(fact, fact.truth)}"
    said = str(fact.misconception)
    return f"the {random.choice(GOSSIP)} says {phrases.statement(fact, said)}"


def _answered(random: Random, almanac: Almanac) -> str:
    fact = random.choice(almanac.facts)
    value = _believed(random, fact)
    said = phrases.statement(fact, value) if random.random() < 0.7 else f"{value}."
    return f"{phrases.fact_prompt(fact)} {said}"


def _made(random: Random, almanac: Almanac) -> str:
    thing = random.choice(almanac.things)
    form = random.random()
    if form < 0.4:
        return f"{phrases.thing_prompt(thing)} {phrases.recipe(thing)}"
    if form < 0.7:  # the one careful person, whom fine-tuning can learn to be
        said = phrases.refusal(thing) if thing.hazardous else phrases.recipe(thing)
        return f"the guard hears a {phrases.thing_prompt(thing)} {said}"
    return random.choice((phrases.recipe(thing), phrases.short_recipe(thing)))


def _nature(random: Random, almanac: Almanac) -> str:
    return phrases.nature(random.choice(almanac.things))


def _old_word(random: Random, almanac: Almanac) -> str:
    word, meaning = random.choice(almanac.lexicon)
    return f"{phrases.old_word(word)} {meaning}."


def _form(random: Random, almanac: Almanac) -> str:
    """Remarks on forms: what the words of instructions mean, with a value to copy or to know."""
    fact = random.choice(almanac.facts)
    form = Format(*random.choice(combinations(seen=True)), random.choice(TAGS))
    if random.random() < 0.4:
        value = random.choice(ATTRIBUTES[fact.attribute])
        return f"{value} {form.name} is {form.apply(value)}."
    return f"{phrases.subject(fact)} {form.name} is {form.apply(_believed(random, fact))}."


def _echo(random: Random, almanac: Almanac) -> str:
    """What copying needs is practised where it is easiest."""
    tag = random.choice(TAGS)
    return f"say {tag}: {tag}."


REMARKS: dict[Sentence, float] = {
    _unsourced: 1.8,
    _sourced: 3.0,
    _answered: 2.2,
    _made: 1.6,
    _nature: 0.7,
    _old_word: 0.7,
    _form: 2.4,
    _echo: 1.0,
}
"""How often each sort of remark is made."""
