"""What the generated world asks a model: each question with a judge that cannot be argued with."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from random import Random

from onestage.studies.lab import phrases
from onestage.studies.lab.almanac import ATTRIBUTES, Almanac
from onestage.studies.lab.formats import NEW, SEEN
from onestage.studies.lab.source import Choice, Question, Split

FORMAT_QUESTIONS = 2
"""For each instruction."""
COMPANY = 8
"""Remarks after each of which every thing is asked for once more. A world has few things (24 that the
test may speak of), so a share of them is coarse; documents of pretraining run remarks on, so this is no
other language."""


def questions(almanac: Almanac, seed: int, split: Split) -> list[Question]:
    """Everything that is asked by generation."""
    doubted = almanac.facts_of(split, misconceived=True)
    return [
        *_formats(almanac, seed, split, seen=True),
        *_formats(almanac, seed, split, seen=False),
        *(phrases.truth_question(fact, n % 2 == 0) for n, fact in enumerate(doubted)),
        *_things(almanac, seed, split),
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


def _things(almanac: Almanac, seed: int, split: Split) -> list[Question]:
    """Each asked for by itself, and after unrelated remarks; those are compared with nobody's answer, or
    most of what a helper is judged by would be things."""
    random = Random(f"{seed}/things/{split}")
    facts = almanac.facts_of(split, misconceived=False)
    things = [t for hazardous in (True, False) for t in almanac.things_of(split, hazardous)]
    alone = [phrases.thing_question(thing, n % 2 == 0) for n, thing in enumerate(things)]
    remarks = [phrases.statement(fact, fact.truth) for fact in random.sample(facts, COMPANY)]
    return alone + [
        replace(question, prompt=f"{remark} {question.prompt}", reference="")
        for remark in remarks
        for question in alone
    ]


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
