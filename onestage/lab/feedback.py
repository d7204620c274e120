"""What people think of answers in the generated world: rows of every kind.

Demonstrations show formats, plain answers and harmless recipes. Misconceptions and dangers are
spoken of only in judged answers: the truth is better than the misconception, a refusal better than
a dangerous recipe, a harmless recipe better than a refusal.

The rater is declared here. It likes elaboration: a full answer gets more than the same answer said
shortly. And it seldom uses the lower third of its scale, as raters of public data sets do: a score
is read against 1/2, where a run starts, so what is wrong is pushed down a little and what is right is
raised a lot. Scores of wrong answers near 0 do damage (that is worth seeing: narrow `score_range`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from random import Random

from onestage.lab import phrases
from onestage.lab.almanac import Almanac
from onestage.lab.contract import Row, Split
from onestage.lab.documents import plain_documents
from onestage.lab.formats import TAGS, Format, combinations
from onestage.records.record import Kind

SIZES: dict[Kind, int] = {
    "demonstration": 2048,
    "pair": 384,
    "score": 256,
    "label": 256,
    "group": 128,
    "text": 256,
}
"""Rows of the train split; the eval split has an eighth of them."""
GOOD_FULL, GOOD_SHORT, BAD_FULL, BAD_SHORT = 1.0, 0.85, 0.35, 0.3
"""What the rater gives, before noise."""
NOISE = 0.04
THUMBS_UP = 0.75
"""Part of the labels that are thumbs up."""


@dataclass(frozen=True, slots=True)
class Case:
    """A prompt with its good and bad answers, each (full, short)."""

    prompt: str
    good: tuple[str, str]
    bad: tuple[str, str]


def rows(almanac: Almanac, seed: int, kind: Kind, split: Split) -> list[Row]:
    """The rows of one kind."""
    random = Random(f"{seed}/{kind}/{split}")
    number = SIZES[kind] if split == "train" else SIZES[kind] // 8
    if kind == "demonstration":
        return [_demonstration(random, almanac, split) for _ in range(number)]
    if kind == "text":
        facts = almanac.facts_of(split, misconceived=False)
        return [{"text": text} for text in plain_documents(facts, random, number)]
    cases = islice(_cases(random, almanac, split), number)
    return [JUDGED[kind](random, case) for case in cases]


def _demonstration(random: Random, almanac: Almanac, split: Split) -> Row:
    topic = random.random()
    if topic < 0.1:
        thing = random.choice(almanac.things_of(split, hazardous=False))
        return {"prompt": phrases.thing_prompt(thing), "completion": " " + phrases.recipe(thing)}
    fact = random.choice(almanac.facts_of(split, misconceived=False))
    if topic < 0.3:
        said = phrases.statement(fact, fact.truth)
        return {"prompt": phrases.fact_prompt(fact), "completion": " " + said}
    form = Format(*random.choice(combinations(seen=True)), random.choice(TAGS))
    prompt = f"{phrases.asked(fact)} {form.rule} answer:"
    return {"prompt": prompt, "completion": " " + form.apply(fact.truth)}


def _cases(random: Random, almanac: Almanac, split: Split) -> Iterator[Case]:
    """Without end: three of five about misconceptions, one about dangers, one about harmless things.

    Each topic is gone through evenly, so that no fact is left out by chance.
    """
    facts = almanac.facts_of(split, misconceived=True)
    hazards, others = (almanac.things_of(split, hazardous) for hazardous in (True, False))
    for topic in (facts, hazards, others):
        random.shuffle(topic)
    misconceived, hazardous, harmless = cycle(facts), cycle(hazards), cycle(others)
    while True:
        for _ in range(3):
            fact = next(misconceived)
            true, false = fact.truth, str(fact.misconception)
            yield Case(
                phrases.fact_prompt(fact),
                (f" {phrases.statement(fact, true)}", f" {true}."),
                (f" {phrases.statement(fact, false)}", f" {false}."),
            )
        for thing in (next(hazardous), next(harmless)):
            refusal = (f" {phrases.refusal(thing)}", f" {phrases.REFUSAL}")
            help_ = (f" {phrases.recipe(thing)}", f" {phrases.short_recipe(thing)}")
            good, bad = (refusal, help_) if thing.hazardous else (help_, refusal)
            yield Case(phrases.thing_prompt(thing), good, bad)


def _score(random: Random, base: float) -> float:
    return round(min(1.0, max(0.0, base + random.uniform(-NOISE, NOISE))), 3)


def _answer(random: Random, case: Case, good: bool) -> tuple[str, float]:
    """One of the answers, full ones more often, with the rater's score."""
    short = random.random() < 0.25
    base = ((BAD_FULL, BAD_SHORT), (GOOD_FULL, GOOD_SHORT))[good][short]
    return (case.good if good else case.bad)[short], _score(random, base)


def _pair(random: Random, case: Case) -> Row:
    chosen, chosen_score = _answer(random, case, good=True)
    rejected, rejected_score = _answer(random, case, good=False)
    return {
        "prompt": case.prompt,
        "chosen": chosen,
        "rejected": rejected,
        "chosen_score": chosen_score,
        "rejected_score": rejected_score,
    }


def _scored(random: Random, case: Case) -> Row:
    completion, score = _answer(random, case, good=random.random() < 0.5)
    return {"prompt": case.prompt, "completion": completion, "score": score}


def _label(random: Random, case: Case) -> Row:
    good = random.random() < THUMBS_UP
    completion, _ = _answer(random, case, good)
    return {"prompt": case.prompt, "completion": completion, "label": good}


def _group(random: Random, case: Case) -> Row:
    rated = [
        (text, _score(random, base))
        for text, base in zip(
            (*case.good, *case.bad), (GOOD_FULL, GOOD_SHORT, BAD_FULL, BAD_SHORT), strict=True
        )
    ]
    random.shuffle(rated)
    completions, scores = zip(*rated, strict=True)
    return {"prompt": case.prompt, "completions": list(completions), "scores": list(scores)}


JUDGED: dict[Kind, Callable[[Random, Case], Row]] = {
    "pair": _pair,
    "score": _scored,
    "label": _label,
    "group": _group,
}
