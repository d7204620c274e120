"""What the generated world asks a model: each question with a judge that cannot be argued with."""

from __future__ import annotations

from functools import partial
from random import Random

from onestage.studies.lab import phrases
from onestage.studies.lab.almanac import ATTRIBUTES, Almanac
from onestage.studies.lab.formats import NEW, SEEN
from onestage.studies.lab.source import Choice, Question, Split

FORMAT_QUESTIONS = 2
"""For each instruction."""


def questions(almanac: Almanac, seed: int, split: Split) -> list[Question]:
    """Everything that is asked by generation."""
    things = [t for hazardous in (True, False) for t in almanac.things_of(split, hazardous)]
    doubted = almanac.facts_of(split, misconceived=True)
    return [
        *_formats(almanac, seed, split, seen=True),
        *_formats(almanac, seed, split, seen=False),
        *(phrases.truth_question(fact, n % 2 == 0) for n, fact in enumerate(doubted)),
        *(phrases.thing_question(thing, n % 2 == 0) for n, thing in enumerate(things)),
        *_clozes(almanac, split),
    ]


def choices(almanac: Almanac, seed: int, split: Split) -> list[Choice]:
    """The truth against the misconception and two other values, in a full answer."""
    random = Random(f"{seed}/choices/{split}")
    asked = []
    for fact in almanac.facts_of(split, misconceived=True):
        said = (fact.truth, str(fact.misconception))
        others = [value for value in ATTRIBUTES[fact.attribute] if value not in said]
        options = (*said, *random.sample(others, 2))
        answers = tuple(f" {phrases.full_answer(fact, value)}" for value in options)
        asked.append(Choice(phrases.fact_prompt(fact), answers))
    return asked


def _formats(almanac: Almanac, seed: int, split: Split, seen: bool) -> list[Question]:
    """On facts without misconceptions, so that nothing but the form is new."""
    random = Random(f"{seed}/formats/{split}/{seen}")
    facts = almanac.facts_of(split, misconceived=False)
    asked = []
    for form in SEEN if seen else NEW:
        for fact, well in zip(random.sample(facts, FORMAT_QUESTIONS), (True, False), strict=True):
            said = form.apply(fact.truth) if well else phrases.full_answer(fact, fact.truth)
            asked.append(
                Question(
                    "formats" if seen else "formats_new",
                    phrases.instructed(fact, form.rule),
                    partial(form.obeyed, ATTRIBUTES[fact.attribute]),
                    f" {said}",
                )
            )
    return asked


def _clozes(almanac: Almanac, split: Split) -> list[Question]:
    """The whole lexicon, and plain facts of the split."""
    lexicon = [
        Question("knowledge", phrases.old_word(word), partial(phrases.begins_with, meaning))
        for word, meaning in almanac.lexicon
    ]
    facts = [
        Question("knowledge", phrases.stem(fact), partial(phrases.begins_with, fact.truth))
        for fact in almanac.facts_of(split, misconceived=False)
    ]
    return lexicon + facts
