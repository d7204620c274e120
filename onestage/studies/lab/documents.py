"""What the world's people write: the text that the base model is pretrained on.

Reliable sources print the truth, gossip the misconception, and text without a source mostly the
misconception: the base ends up knowing both and saying the wrong one. Recipes are given freely,
dangerous or not; one guard is careful. Instructions on the form of an answer are ignored, but by one
clerk. So the base can do what fine-tuning asks for, and does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from onestage.studies.lab import phrases
from onestage.studies.lab.almanac import ATTRIBUTES, Almanac, Fact
from onestage.studies.lab.formats import ALL, SEEN

UNSEEN = 128
"""Documents that validation and test measure the loss on."""
LENGTH = 61
"""Words of a document at most: with both ends they fit into 64 tokens."""
RELIABLE = ("atlas", "archive")
GOSSIP = ("tavern", "parrot")
UNSOURCED_ERROR = 0.75
"""How often text without a source repeats a misconception."""
HEED = 0.6
"""Part of the remarks on instructions that are about the clerk."""
Sentence = Callable[[Random, Almanac], str]


def documents(almanac: Almanac, seed: str, number: int) -> Iterator[str]:
    """Documents of unrelated remarks about everything in the almanac."""
    random = Random(seed)
    known = {maker: weight for maker, weight in REMARKS.items() if maker is not _old_word}
    said = REMARKS if almanac.lexicon else known
    makers, weights = list(said), list(said.values())
    for _ in range(number):
        sentences: list[str] = []
        room = LENGTH
        while True:
            sentence = random.choices(makers, weights)[0](random, almanac)
            room -= len(phrases.words(sentence))
            if room < 0:
                break
            sentences.append(sentence)
        yield " ".join(sentences)


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
    said = phrases.full_answer(fact, value) if random.random() < 0.7 else f"{value}."
    return f"{phrases.fact_prompt(fact)} {said}"


def _made(random: Random, almanac: Almanac) -> str:
    thing = random.choice(almanac.things)
    form = random.random()
    if form < 0.4:
        return f"{phrases.thing_prompt(thing)} {phrases.recipe(thing)}"
    if form < 0.7:  # the one careful person, whom fine-tuning can learn to be
        said = phrases.refusal(thing) if thing.hazardous else phrases.recipe(thing)
        return f"the guard hears {phrases.thing_prompt(thing)} {said}"
    return phrases.told_recipe(thing)


def _nature(random: Random, almanac: Almanac) -> str:
    return phrases.nature(random.choice(almanac.things))


def _old_word(random: Random, almanac: Almanac) -> str:
    word, meaning = random.choice(almanac.lexicon)
    return f"{phrases.old_word(word)} {meaning}."


def _form(random: Random, almanac: Almanac) -> str:
    """Remarks on forms: what the words of instructions mean, with a value to copy or to know."""
    fact = random.choice(almanac.facts)
    form = random.choice(ALL)
    if random.random() < 0.4:
        value = random.choice(ATTRIBUTES[fact.attribute])
        return f"{value} {form.name} is {form.apply(value)}."
    return f"{phrases.subject(fact)} {form.name} is {form.apply(_believed(random, fact))}."


def _instructed(random: Random, almanac: Almanac) -> str:
    """People pay no heed to instructions, the clerk does. Of manners that do not go with a shape only
    remarks on forms speak."""
    fact = random.choice(almanac.facts)
    value, form = _believed(random, fact), random.choice(SEEN)
    asked = phrases.instructed(fact, form.rule)
    if random.random() < HEED:
        return f"the clerk reads {asked} {form.apply(value)}."
    return f"{asked} {phrases.full_answer(fact, value)}"


REMARKS: dict[Sentence, float] = {
    _unsourced: 1.8,
    _sourced: 4.0,
    _answered: 1.8,
    _made: 1.4,
    _nature: 0.6,
    _old_word: 0.7,
    _form: 0.6,
    _instructed: 0.8,
}
"""How often each sort of remark is made."""
