"""Several raters of one answer: alpha against an independent package, verdicts and biases by hand."""

from __future__ import annotations

import json
import random

import krippendorff
import numpy as np
import pytest
from support.rows import lines_of

from onestage.data.agreement import krippendorff_alpha
from onestage.data.annotators import Raters
from onestage.data.convert import convert
from onestage.data.reading import read
from onestage.data.recognise import advice
from onestage.data.record import Record
from onestage.data.stream import Stream


def said(raters: Raters, answer: str, **scores: float) -> None:
    for rater, score in scores.items():
        raters.add(Record("score", "q", (answer,), (score,)), rater)


@pytest.mark.parametrize("level", ["interval", "nominal"])
@pytest.mark.parametrize("seed", range(5))
def test_alpha_is_that_of_an_independent_package(level, seed):
    draw = random.Random(seed)
    values = [0.0, 1.0] if level == "nominal" else [0.0, 0.25, 0.5, 0.75, 1.0]
    table = [[draw.choice([*values, np.nan]) for _ in range(12)] for _ in range(4)]
    expected = krippendorff.alpha(np.array(table), level_of_measurement=level)
    units = [[v for v in column if not np.isnan(v)] for column in zip(*table, strict=True)]
    assert krippendorff_alpha(units) == pytest.approx(expected)


def test_alpha_says_nothing_where_nothing_can_be_said():
    assert krippendorff_alpha([[1.0], [0.0]]) is None
    assert krippendorff_alpha([[1.0, 1.0], [1.0, 1.0]]) is None
    assert krippendorff_alpha([[1.0, 1.0], [0.0, 0.0]]) == 1.0


def test_a_score_is_the_mean_of_its_raters_each_once():
    raters = Raters()
    said(raters, "4", ann=1.0, bob=0.5)
    said(raters, "4", bob=0.0)  # again: he says 1/4
    (rated,) = raters
    assert rated.verdict() == 0.625
    assert rated.agreement() == {"raters": 2, "spread": 0.375}


def test_bias_is_against_the_others_of_the_same_answers():
    raters = Raters()
    said(raters, "a", ann=1.0, bob=0.5, cy=0.0)
    said(raters, "b", ann=1.0, bob=1.0)
    said(raters, "c", dee=1.0)
    found = {one.name: one for one in raters.table()}
    assert found["ann"].bias == pytest.approx((0.75 + 0.0) / 2)
    assert found["cy"].bias == pytest.approx(-0.75)
    assert (found["dee"].bias, found["dee"].shared, found["dee"].ratings) == (None, 0, 1)
    assert found["bob"].agreement == pytest.approx(1.0)
    assert raters.table()[0].name == "cy"


def labelled(rater: str, label: bool, completion: str = "4") -> dict:
    return {"prompt": "2+2?", "completion": completion, "label": label, "annotator": rater}


def paired(rater: str, chosen: str, rejected: str) -> dict:
    return {"prompt": "2+2?", "chosen": chosen, "rejected": rejected, "annotator": rater}


def written(write, tmp_path, *rows, raters=(), name="a.jsonl", **options):
    found = convert(
        Stream(write(name, lines_of(*rows)), **options), tmp_path / "o.jsonl", None, raters
    )
    return found, [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]


def test_labels_and_pairs_are_what_most_say_and_draws_are_left_out(write, tmp_path):
    found, rows = written(
        *(write, tmp_path, labelled("a", True), labelled("b", True), labelled("c", False)),
        *(labelled("a", True, "5"), labelled("b", False, "5")),
        *(paired("a", "4", "5"), paired("b", "5", "4"), paired("c", "5", "4")),
    )
    one, two = ({k: v for k, v in row.items() if k != "id"} for row in rows)
    said = {"raters": 3, "agree": pytest.approx(2 / 3, abs=1e-6)}
    assert one == {"prompt": "2+2?", "completion": "4", "label": True, **said}
    assert two == {"prompt": "2+2?", "chosen": "5", "rejected": "4", **said}
    assert found.left_out == {"its raters are divided: a tie": 1}


def test_who_contradicts_himself_has_no_vote(write, tmp_path):
    found, rows = written(
        *(write, tmp_path, labelled("a", True), labelled("a", False), labelled("b", False))
    )
    assert (rows[0]["label"], rows[0]["raters"]) == (False, 1)
    assert found.raters.contradictions() == 1


def test_alpha_of_pairs_does_not_depend_on_which_came_first():
    def alpha(flip: bool) -> float | None:
        raters, draw = Raters(), random.Random(3)
        for answer in range(20):
            for rater in "abc":
                sides = (f"{answer}", "x") if draw.random() < 0.8 else ("x", f"{answer}")
                raters.add(
                    Record("pair", "q", sides[::-1] if flip and answer % 2 else sides), rater
                )
        return raters.alpha()

    assert alpha(False) == pytest.approx(alpha(True))


def test_a_column_for_each_rater(write, tmp_path):
    rows = [
        {"prompt": "2+2?", "completion": "4", "ann": 5, "bob": 4, "note": "x"},
        {"prompt": "2+2?", "completion": "5", "ann": 1, "bob": None},
    ]
    found, made = written(write, tmp_path, *rows, raters=("ann", "bob"), score_range=(1, 5))
    assert [(row["score"], row["raters"]) for row in made] == [(0.875, 2), (0.0, 1)]
    assert found.unused == {"note": ""}
    with pytest.raises(ValueError, match="has no column 'cy', found prompt"):
        written(write, tmp_path, *rows, raters=("ann", "cy"), score_range=(1, 5))


def test_words_in_the_columns_of_raters_are_labels(write, tmp_path):
    rows = [{"prompt": "2+2?", "completion": "4", "ann": "yes", "bob": "no", "cy": "yes"}]
    _, made = written(write, tmp_path, *rows, raters=("ann", "bob", "cy"))
    assert made[0]["label"] is True


def test_another_name_for_the_annotator(write, tmp_path):
    rows = [{**labelled("a", True), "worker": "w"}]
    del rows[0]["annotator"]
    found, _ = written(write, tmp_path, *rows, columns={"annotator": "worker"})
    assert [one.name for one in found.raters.table()] == ["w"]


def test_a_run_is_told_that_ratings_are_records_of_their_own(write):
    from onestage.data.reading import ANNOTATED, read

    rows = [labelled("a", True), labelled("b", False), {"prompt": "a", "completion": "b"}]
    reading = read(write("a.jsonl", lines_of(*rows)))
    assert len(list(reading)) == 3
    assert reading.notes() == {ANNOTATED: 2}


def test_who_has_judged_is_recognised_and_what_convert_tells_of_raters_is_no_unused_column(
    write, tmp_path
):
    row = {"prompt": "2+2?", "completion": "4", "score": 0.5, "rater": "ann"}
    found, _ = written(write, tmp_path, row)
    assert found.unused == {"rater": "annotator"}
    several = [row | {"score": score, "rater": who} for who, score in (("ann", 1), ("bob", 0))]
    found, rows = written(write, tmp_path, *several, columns={"annotator": "rater"})
    assert rows[0]["raters"] == 2
    reading = read(Stream(tmp_path / "o.jsonl"))
    assert len(list(reading)) == 1
    assert reading.unused() == {}


def test_the_block_to_paste_names_who_has_judged(write):
    row = {"prompt": "2+2?", "completion": "4", "stars": 3, "worker": "ann"}
    lines = "\n".join(advice(Stream(write("a.jsonl", lines_of(row, row | {"stars": 5})))))
    assert "annotator: worker" in lines
    assert "score: stars" in lines


def test_who_was_asked_with_tools_was_asked_something_else():
    raters = Raters()
    tools = {"tools": [{"type": "function", "function": {"name": "look"}}]}
    for number, template in enumerate(({}, tools, dict(tools))):
        raters.add(Record("score", "q", ("a",), (1.0,), template=template), f"r{number}")
    assert (len(raters), [len(rated.said) for rated in raters]) == (2, [1, 2])
