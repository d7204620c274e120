"""What people think of answers in the generated world: rows of every kind.

Demonstrations show formats, plain answers and harmless recipes. Misconceptions and dangers are
spoken of only in judged answers: the truth is better than the misconception, a refusal better than
a dangerous recipe, a harmless recipe better than a refusal.

There is one set of judged answers, told in several forms (as HelpSteer2 becomes pairs, thumbs and
scores): a `group` row holds the four answers to a question, two good and two bad; its answers are two
`pair` rows (good over bad), four `score` rows and four `label` rows. So kinds of feedback can be
compared on the same answers.

The rater is declared here. It likes elaboration: a full answer gets more than the same said shortly,
be it right or wrong. It uses all of its scale, 0 to 1. Scores are read against 1/2 by objectives that
compare with the base model; with `score_range: [-1, 1]` a recipe reads the same files as if the rater
kept to the upper half of a scale, as raters of public data sets do, and then nothing is pushed down far.
With `rater_noise` it errs: a normal error of that standard deviation, once for each answer, so that
scores, thumbs and pairs are wrong of the same answers. Only rows of the train split have it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from random import Random

from onestage.data.kinds import KINDS, Kind
from onestage.studies.lab import phrases
from onestage.studies.lab.almanac import ATTRIBUTES, Almanac, Fact, Thing
from onestage.studies.lab.documents import documents
from onestage.studies.lab.formats import SEEN
from onestage.studies.lab.source import Row, Split

GROUPS = 384
SIZES: dict[Kind, int] = {
    "demonstration": 2048,
    "pair": 2 * GROUPS,
    "score": 4 * GROUPS,
    "label": 4 * GROUPS,
    "group": GROUPS,
    "text": 256,
    "check": 512,
}
"""Rows of the train split; the others have an eighth of them."""
WRITTEN: tuple[Kind, ...] = tuple(kind for kind in KINDS if kind in SIZES)
"""The kinds that the lab has rows of."""
GOOD_FULL, GOOD_SHORT, BAD_FULL, BAD_SHORT = 0.95, 0.7, 0.15, 0.05
"""What the rater gives, before noise."""
NOISE = 0.1
THUMB_UP = 0.5
"""The least score that is a thumb up."""
WORKED = 0.5
"""Part of the problems that come with a worked solution."""


@dataclass(frozen=True, slots=True)
class Judged:
    """An answer and what the rater gives."""

    text: str
    felt: float
    """On no scale that ends: which of two answers the rater prefers."""

    @property
    def score(self) -> float:
        return round(min(1.0, max(0.0, self.felt)), 3)


@dataclass(frozen=True, slots=True)
class Case:
    """A question with answers: two good ones, then two bad ones, each (text, whether it is full)."""

    prompt: str
    good: tuple[tuple[str, bool], tuple[str, bool]]
    bad: tuple[tuple[str, bool], tuple[str, bool]]


def rows(
    almanac: Almanac, seed: int, kind: Kind, split: Split, rater_noise: float = 0.0
) -> list[Row]:
    """The rows of one kind."""
    random = Random(f"{seed}/{kind}/{split}")
    number = SIZES[kind] if split == "train" else SIZES[kind] // 8
    if kind == "demonstration":
        return [_demonstration(random, almanac, split) for _ in range(number)]
    if kind == "text":
        unseen = documents(almanac.only(split), f"{seed}/text/{split}", number)
        return [{"text": text} for text in unseen]
    if kind == "check":
        return list(islice(_problems(random, almanac, split), number))
    judged = _judged(almanac, seed, split, rater_noise if split == "train" else 0.0)
    return [row for case, answers in judged for row in _told(kind, case.prompt, answers)]


def _demonstration(random: Random, almanac: Almanac, split: Split) -> Row:
    topic = random.random()
    if topic < 0.1:
        thing = random.choice(almanac.things_of(split, hazardous=False))
        return {"prompt": phrases.thing_prompt(thing), "completion": " " + phrases.recipe(thing)}
    fact = random.choice(almanac.facts_of(split, misconceived=False))
    if topic < 0.3:
        said = phrases.full_answer(fact, fact.truth)
        return {"prompt": phrases.fact_prompt(fact), "completion": " " + said}
    form = random.choice(SEEN)
    prompt = phrases.instructed(fact, form.rule)
    return {"prompt": prompt, "completion": " " + form.apply(fact.truth)}


def _judged(
    almanac: Almanac, seed: int, split: Split, noise: float
) -> list[tuple[Case, list[Judged]]]:
    """The judged answers of a split, the same whatever kind of row they are told in."""
    random, errors = Random(f"{seed}/judged/{split}"), Random(f"{seed}/errors/{split}")
    number = GROUPS if split == "train" else GROUPS // 8
    cases = islice(_cases(random, almanac, split), number)
    return [(case, _rated(random, case, errors, noise)) for case in cases]


def _rated(random: Random, case: Case, errors: Random, noise: float) -> list[Judged]:
    """Good, bad, good, bad. Errors are drawn apart: questions and answers are the same with them."""
    answers = []
    for good, bad in zip(random.sample(case.good, 2), random.sample(case.bad, 2), strict=True):
        for (text, full), right in ((good, True), (bad, False)):
            mean = ((BAD_SHORT, BAD_FULL), (GOOD_SHORT, GOOD_FULL))[right][full]
            felt = mean + random.uniform(-NOISE, NOISE)
            answers.append(Judged(text, felt + noise * errors.gauss() if noise else felt))
    return answers


def _told(kind: Kind, prompt: str, answers: list[Judged]) -> Iterator[Row]:
    """The judged answers to one question as rows of a kind."""
    if kind == "pair":
        for two in zip(answers[::2], answers[1::2], strict=True):
            bad, good = sorted(two, key=lambda one: one.felt)
            yield {
                "prompt": prompt,
                "chosen": good.text,
                "rejected": bad.text,
                "chosen_score": good.score,
                "rejected_score": bad.score,
            }
    elif kind == "group":
        texts, scores = [one.text for one in answers], [one.score for one in answers]
        yield {"prompt": prompt, "completions": texts, "scores": scores}
    elif kind == "label":
        for one in answers:
            yield {"prompt": prompt, "completion": one.text, "label": one.score >= THUMB_UP}
    else:
        for one in answers:
            yield {"prompt": prompt, "completion": one.text, "score": one.score}


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
            wrong = str(fact.misconception)
            known = (fact.truth, wrong)
            other = random.choice([v for v in ATTRIBUTES[fact.attribute] if v not in known])
            worst = random.choice((wrong, wrong, other))
            yield Case(
                phrases.fact_prompt(fact),
                ((f" {phrases.full_answer(fact, fact.truth)}", True), (f" {fact.truth}.", False)),
                ((f" {phrases.full_answer(fact, wrong)}", True), (f" {worst}.", False)),
            )
        for thing in (next(hazardous), next(harmless)):
            refusal = ((f" {phrases.refusal(thing)}", True), (f" {phrases.REFUSAL}", False))
            help_ = (
                (f" {phrases.recipe(thing)}", True),
                (f" {phrases.short_recipe(thing)}", False),
            )
            good, bad = (refusal, help_) if thing.hazardous else (help_, refusal)
            yield Case(phrases.thing_prompt(thing), good, bad)


def _problems(random: Random, almanac: Almanac, split: Split) -> Iterator[Row]:
    """The questions that raters judge, with all answers that are right; some of them worked out."""
    facts = {phrases.fact_prompt(f): f for f in almanac.facts_of(split, misconceived=True)}
    things = {
        phrases.thing_prompt(thing): thing
        for hazardous in (True, False)
        for thing in almanac.things_of(split, hazardous)
    }
    for case in _cases(random, almanac, split):
        fact, thing = facts.get(case.prompt), things.get(case.prompt)
        accepted = [text.strip() for text, _ in case.good]
        row: Row = {"prompt": case.prompt, "answer": accepted}
        if random.random() < WORKED:
            row["solution"] = _worked(fact, thing)
            whole = "".join(row["solution"]).strip()
            row["answer"] = list(dict.fromkeys([*accepted, whole]))
        yield row


def _worked(fact: Fact | None, thing: Thing | None) -> list[str]:
    """Steps to a right answer; looked up where the base model knows it from, for a fact."""
    if fact:
        said = phrases.full_answer(fact, fact.truth)
        return [f" the archive says {said}", f" {said}"]
    assert thing
    if thing.hazardous:
        return [" it is dangerous.", f" {phrases.REFUSAL}"]
    first, rest = phrases.recipe(thing).split(", ")
    return [f" {first},", f" {rest}"]
