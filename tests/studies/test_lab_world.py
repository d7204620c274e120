"""The generated world: the same from the same seed, split by name, and labelled as its judges judge."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from statistics import NormalDist
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onestage.data.kinds import KINDS, Kind
from onestage.data.record import Refusal
from onestage.data.rows import record_of
from onestage.data.stream import Stream
from onestage.studies.lab import phrases
from onestage.studies.lab.almanac import ATTRIBUTES, Size
from onestage.studies.lab.documents import GOSSIP, RELIABLE
from onestage.studies.lab.exam import COMPANY
from onestage.studies.lab.feedback import SIZES
from onestage.studies.lab.formats import ALL, NEW, SEEN, Format
from onestage.studies.lab.source import SPLITS, Question, Split
from onestage.studies.lab.world import LabWorld

WORLD = LabWorld(3)
JUDGED: tuple[Kind, ...] = ("pair", "score", "label", "group")


def everything(world: LabWorld) -> list[Any]:
    rows = [world.rows(kind, split) for kind in KINDS for split in SPLITS]
    return [
        *rows,
        list(islice(world.pretraining_text("train"), 50)),
        world.questions("test")[0].prompt,
    ]


def said(row: dict[str, Any]) -> list[str]:
    """All strings of a row."""
    held = [value if isinstance(value, list) else [value] for value in row.values()]
    return [text for texts in held for text in texts if isinstance(text, str)]


def verdicts(row: dict[str, Any]) -> list[tuple[str, float]]:
    """(completion, how good the row calls it: a score, or 0 or 1)."""
    if "completions" in row:
        return list(zip(row["completions"], row["scores"], strict=True))
    if "chosen" in row:
        return [(row["chosen"], row["chosen_score"]), (row["rejected"], row["rejected_score"])]
    return [(row["completion"], row.get("score", float(row.get("label", 1.0))))]


def is_good(world: LabWorld, prompt: str, completion: str) -> bool:
    """What the world itself says of an answer, short or full."""
    for fact in world.almanac.doubted:
        if prompt == phrases.fact_prompt(fact):
            return phrases.is_true(fact, completion)
    for thing in world.almanac.things:
        if prompt == phrases.thing_prompt(thing):
            judge = phrases.refuses if thing.hazardous else phrases.explains
            return judge(thing, completion)
    raise AssertionError(f"not a question that raters are asked: {prompt}")


def test_a_seed_is_a_world() -> None:
    assert everything(LabWorld(3)) == everything(WORLD)
    assert WORLD.choices("test") == LabWorld(3).choices("test")


def test_seeds_are_different_worlds() -> None:
    one, two = everything(LabWorld(3)), everything(LabWorld(4))
    assert all(left != right for left, right in zip(one, two, strict=True))


def names_in(texts: Iterable[str]) -> set[str]:
    """Entities and things that texts name."""
    named = {word for text in texts for word in phrases.words(text)}
    return named & set(WORLD.almanac.split_of)


@given(seed=st.integers(0, 10**6), kind=st.sampled_from(KINDS))
@settings(max_examples=12, deadline=None)
def test_no_two_splits_name_the_same(seed: int, kind: Kind) -> None:
    world = LabWorld(seed)
    for split in SPLITS:
        texts = [text for row in world.rows(kind, split) for text in said(row)]
        named = {word for text in texts for word in phrases.words(text)}
        named &= set(world.almanac.split_of)
        assert named
        assert {world.almanac.split_of[name] for name in named} == {split}


def test_questions_are_about_the_split() -> None:
    for split in SPLITS:
        prompts = [q.prompt for q in (*WORLD.questions(split), *WORLD.choices(split))]
        assert {WORLD.almanac.split_of[name] for name in names_in(prompts)} == {split}


def test_splits_are_as_large_as_declared() -> None:
    almanac, size = WORLD.almanac, Size()
    entities = Counter(almanac.split_of[name] for name in {fact.entity for fact in almanac.facts})
    things = Counter(almanac.split_of[thing.name] for thing in almanac.things)
    assert (entities["validation"], entities["test"]) == size.held_entities == (16, 24)
    assert (things["validation"], things["test"]) == size.held_things
    assert (entities.total(), things.total()) == (size.entities, size.things) == (80, 80)


def test_no_feedback_mentions_the_old_language() -> None:
    old = {word for pair in WORLD.almanac.lexicon for word in pair}
    for kind in KINDS:
        for row in WORLD.rows(kind, "train"):
            assert not old & {word for text in said(row) for word in phrases.words(text)}


def test_demonstrations_are_silent_on_misconceptions_and_dangers() -> None:
    almanac = WORLD.almanac
    told = [phrases.stem(f) for f in almanac.doubted] + [phrases.asked(f) for f in almanac.doubted]
    rows = WORLD.rows("demonstration", "train")
    text = "\n".join(text for row in rows for text in said(row))
    assert not [sentence for sentence in told if sentence in text]
    assert not [t.name for t in almanac.things if t.hazardous and f"{t.name}?" in text]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", SPLITS)
def test_rows_are_rows_of_their_kind(kind: Kind, split: Split) -> None:
    rows = WORLD.rows(kind, split)
    assert len(rows) == SIZES[kind] // (1 if split == "train" else 8)
    for number, row in enumerate(rows):
        record = record_of(row, Stream("lab"), f"lab:{number}")
        assert not isinstance(record, Refusal)
        assert record.kind == kind


@given(seed=st.integers(0, 10**6), split=st.sampled_from(SPLITS))
@settings(max_examples=8, deadline=None)
def test_judged_rows_tell_the_same_judgements(seed: int, split: Split) -> None:
    """Pairs, scores and groups hold the same scored responses; labels the same, cut at a half."""
    world = LabWorld(seed)
    found = {
        kind: [
            (row["prompt"], *verdict)
            for row in world.rows(kind, split)
            for verdict in verdicts(row)
        ]
        for kind in JUDGED
    }
    assert len(found["score"]) == 4 * len(world.rows("group", split))
    assert len(found["score"]) == 2 * len(world.rows("pair", split))
    assert found["pair"] == found["score"] == found["group"]
    cut = [(prompt, text, float(score >= 0.5)) for prompt, text, score in found["score"]]
    assert found["label"] == cut


def _scores(world: LabWorld) -> list[tuple[str, str, float]]:
    return [(row["prompt"], row["completion"], row["score"]) for row in world.rows("score")]


@pytest.mark.parametrize("kind", JUDGED)
def test_verdicts_agree_with_the_truth(kind: Kind) -> None:
    found = {True: 0, False: 0}
    for row in WORLD.rows(kind, "train"):
        for completion, score in verdicts(row):
            assert 0 <= score <= 1
            good = is_good(WORLD, row["prompt"], completion)
            assert good == (score > 0.5), (row["prompt"], completion, score)
            found[good] += 1
    assert found[True] == found[False]


def test_a_rater_that_errs_is_wrong_of_the_same_answers_in_every_form() -> None:
    """Questions and answers stay; as many pairs turn as two normal errors turn; rows to evaluate on stay
    right."""
    noise = 0.8
    world = LabWorld(3, rater_noise=noise)
    right = {(p, text): score for p, text, score in _scores(WORLD)}
    found = _scores(world)
    assert [(p, text) for p, text, _ in found] == [(p, text) for p, text, _ in _scores(WORLD)]
    assert [row["label"] for row in world.rows("label")] == [s >= 0.5 for _, _, s in found]
    turned = expected = 0.0
    felt = {(p, text, score) for p, text, score in found}
    for row in world.rows("pair"):
        prompt, chosen, rejected = row["prompt"], row["chosen"], row["rejected"]
        assert {
            (prompt, chosen, row["chosen_score"]),
            (prompt, rejected, row["rejected_score"]),
        } <= felt
        assert row["chosen_score"] >= row["rejected_score"]
        gap = right[prompt, chosen] - right[prompt, rejected]
        turned += gap < 0
        expected += 1 - NormalDist(0, noise * 2**0.5).cdf(abs(gap))
    assert turned == pytest.approx(expected, abs=4 * (expected * 0.75) ** 0.5)
    assert expected > 100
    for kind in JUDGED:
        assert world.rows(kind, "test") == WORLD.rows(kind, "test")


def test_scores_use_the_whole_scale() -> None:
    scores = [row["score"] for row in WORLD.rows("score", "train")]
    assert min(scores) == 0
    assert max(scores) == 1
    low, high = ([s for s in scores if lowest <= s < lowest + 0.5] for lowest in (0, 0.5))
    assert max(low) - min(low) > 0.2
    assert 1 - min(high) > 0.35


def test_every_problem_accepts_what_its_judge_calls_right() -> None:
    worked = 0
    for row in WORLD.rows("check", "train"):
        assert len(set(row["answer"])) == len(row["answer"]) >= 2
        for answer in row["answer"]:
            assert is_good(WORLD, row["prompt"], answer)
        if "solution" in row:
            worked += 1
            assert len(row["solution"]) == 2
            assert "".join(row["solution"]).strip() in row["answer"]
            if "make" not in row["prompt"]:
                assert row["solution"][-1].strip() in row["answer"]
    assert 0.4 < worked / SIZES["check"] < 0.6


def test_raters_like_elaboration() -> None:
    scores: dict[bool, list[float]] = {True: [], False: []}
    for row in WORLD.rows("group", "train"):
        for completion, score in verdicts(row):
            if is_good(WORLD, row["prompt"], completion):
                scores[len(phrases.words(completion)) > 6].append(score)
    assert sum(scores[True]) / len(scores[True]) > sum(scores[False]) / len(scores[False])


def test_facts_are_half_misconceived_and_things_half_hazardous() -> None:
    almanac = WORLD.almanac
    assert len(almanac.doubted) * 2 == len(almanac.facts)
    assert all(fact.truth != fact.misconception for fact in almanac.facts)
    for split in SPLITS:
        assert len(almanac.things_of(split, True)) == len(almanac.things_of(split, False))


def test_sources_differ_where_people_err() -> None:
    """Reliable sources print the truth, gossip the misconception, the rest it three in four times."""
    facts = {phrases.stem(fact): fact for fact in WORLD.almanac.doubted}
    wrong: dict[str, list[bool]] = {"reliable": [], "gossip": [], "nobody": []}
    kinds = {**dict.fromkeys(RELIABLE, "reliable"), **dict.fromkeys(GOSSIP, "gossip")}
    said = r"(?:the (\w+) says )?(the \w+ of \w+ is) (\w+)\."
    for document in islice(WORLD.pretraining_text("train"), 1000):
        for source, stem, value in re.findall(said, document):
            if stem in facts:
                assert value in (facts[stem].truth, facts[stem].misconception)
                wrong[kinds.get(source, "nobody")].append(value != facts[stem].truth)
    assert wrong["reliable"]
    assert not any(wrong["reliable"])
    assert all(wrong["gossip"])
    assert 0.7 < sum(wrong["nobody"]) / len(wrong["nobody"]) < 0.8


@pytest.mark.parametrize("form", ALL, ids=lambda form: form.name)
def test_an_instruction_is_obeyed_to_the_letter_or_not(form: Format) -> None:
    values = ATTRIBUTES["color"]
    right = form.apply("red")
    assert form.obeyed(values, f" {right}")
    assert not form.obeyed(values, f"{right} red")
    assert not form.obeyed(values, form.apply("bread"))
    assert not form.obeyed(values, "")
    assert not any(other.obeyed(values, right) for other in ALL if other != form)


@pytest.mark.parametrize(
    ("form", "rule", "right"),
    [
        (Format("json"), "answer in json.", '{"answer": "red"}'),
        (
            Format("brackets", "politely", "warmly"),
            "answer in brackets politely warmly.",
            "please [red] friend",
        ),
        (Format("thrice", closing="gladly"), "answer thrice gladly.", "red red red cheers"),
        (Format("heading", "loudly"), "answer as a heading loudly.", "hey # red"),
    ],
)
def test_what_an_instruction_asks_for(form: Format, rule: str, right: str) -> None:
    assert form.rule == rule
    assert form.apply("red") == right


def test_kept_out_pairs_are_new_but_their_parts_are_not() -> None:
    rows = WORLD.rows("demonstration", "train")
    shown = {row["prompt"].split("? ")[1] for row in rows}
    assert shown <= {"answer:", *(f"{form.rule} answer:" for form in SEEN)}
    assert len(shown) > 0.95 * len(SEEN)
    for name in ("shape", "opening", "closing"):
        assert {getattr(form, name) for form in SEEN} == {getattr(form, name) for form in ALL}
    pairs = [{(f.shape, f.opening), (f.shape, f.closing, 0)} for f in SEEN]
    assert not [f for f in NEW if {(f.shape, f.opening), (f.shape, f.closing, 0)} in pairs]


def answers_of(world: LabWorld, metric: str) -> list[Question]:
    return [question for question in world.questions("test") if question.metric == metric]


def test_judges_of_truth() -> None:
    facts = WORLD.almanac.facts_of("test", misconceived=True)
    for question, fact in zip(answers_of(WORLD, "truth"), facts, strict=True):
        for good in (phrases.statement(fact, fact.truth), f"{fact.truth}. more words."):
            assert question.judge(good)
        wrong = str(fact.misconception)
        for bad in (phrases.statement(fact, wrong), f"{fact.truth} {wrong}.", "", phrases.REFUSAL):
            assert not question.judge(bad)


def test_judges_of_safety() -> None:
    for metric, hazardous in (("refuses", True), ("helps", False)):
        things = WORLD.almanac.things_of("test", hazardous) * (1 + COMPANY)
        for question, thing in zip(answers_of(WORLD, metric), things, strict=True):
            for text in (phrases.recipe(thing), phrases.short_recipe(thing)):
                assert question.judge(text) != hazardous
            for text in (phrases.refusal(thing), phrases.REFUSAL):
                assert question.judge(text) == hazardous
            assert not question.judge("")
            assert not question.judge(f"i cannot help. {phrases.recipe(thing)}")


def test_every_thing_is_asked_for_alone_and_in_company() -> None:
    """Two hundred questions of 24 things; only those without a remark have an answer to win against."""
    for split, number in (("test", 216), ("validation", 144)):
        asked = [q for q in WORLD.questions(split) if q.metric in ("refuses", "helps")]
        assert len({question.prompt for question in asked}) == len(asked) == number
        alone = asked[: number // (1 + COMPANY)]
        for n, question in enumerate(asked):
            assert question.prompt.endswith(alone[n % len(alone)].prompt)
            assert bool(question.reference) == (n < len(alone))


def test_judges_of_knowledge() -> None:
    known = dict(WORLD.almanac.lexicon)
    for question in answers_of(WORLD, "knowledge")[: len(known)]:
        meaning = known[question.prompt.split()[3]]
        assert question.judge(f" {meaning}. the food")
        assert not question.judge(f"the {meaning}")
