"""A row becomes the record it states, or one sentence that says why not."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.rows import DEMO, FIVE, FOUR, GROUP, PAIR, PLAIN, USER, WHY

from onestage.data._row_error import RowError
from onestage.data.kinds import KINDS
from onestage.data.record import Record
from onestage.data.rows import record_of
from onestage.data.stream import NAMES, Stream

HELPSTEER = Stream(
    "helpsteer2",
    columns={"completion": "response"},
    score_range=(0, 4),
    ratings={"helpfulness": 0.65, "correctness": 0.8, "coherence": 0.45},
)


def record(row: dict, stream: Stream = PLAIN, unread: tuple[str, ...] = ()) -> Record:
    return record_of(row, stream, "file:1", unread)


def refusal(row: dict, stream: Stream = PLAIN, unread: tuple[str, ...] = ()) -> str:
    with pytest.raises(RowError) as caught:
        record(row, stream, unread)
    assert not caught.value.tie
    return str(caught.value)


# row -> kind, prompt, completions, scores
KINDS_OF_ROWS = {
    "messages": (
        {"messages": [USER, FOUR, WHY, FIVE]},
        ("demonstration", (), ((USER, FOUR, WHY, FIVE),), ()),
    ),
    "demonstration": (
        {"prompt": "2+2?", "completion": "4"},
        ("demonstration", "2+2?", ("4",), ()),
    ),
    "empty prompt given": ({"prompt": "", "completion": "4"}, ("demonstration", "", ("4",), ())),
    "sharegpt": (
        {
            "system": "Be brief.",
            "conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}],
        },
        ("demonstration", (), (({"role": "system", "content": "Be brief."}, USER, FOUR),), ()),
    ),
    "conversations with roles": (
        {"conversations": [USER, FOUR]},
        ("demonstration", (), ((USER, FOUR),), ()),
    ),
    "alpaca": (
        {"instruction": "Add.", "input": "2, 2", "output": "4", "text": "rendered"},
        ("demonstration", "Add.\n\n2, 2", ("4",), ()),
    ),
    "alpaca without input": (
        {"instruction": "Add.", "input": " ", "output": "4", "prompt": "Add. Output: 4"},
        ("demonstration", "Add.", ("4",), ()),
    ),
    "alpaca pair": (
        {"instruction": "Add.", "input": "2, 2", "chosen": "4", "rejected": "5"},
        ("pair", "Add.\n\n2, 2", ("4", "5"), ()),
    ),
    "score": (
        {"prompt": "2+2?", "completion": "4", "score": 0.25},
        ("score", "2+2?", ("4",), (0.25,)),
    ),
    "label": (
        {"prompt": "2+2?", "completion": "5", "label": False},
        ("label", "2+2?", ("5",), (0.0,)),
    ),
    "label as number": (
        {"prompt": "2+2?", "completion": "4", "label": 1},
        ("label", "2+2?", ("4",), (1.0,)),
    ),
    "pair": (
        {"prompt": "2+2?", "chosen": "4", "rejected": "5"},
        ("pair", "2+2?", ("4", "5"), ()),
    ),
    "score of a database": (
        {"prompt": "2+2?", "completion": "4", "score": Decimal("0.25")},
        ("score", "2+2?", ("4",), (0.25,)),
    ),
    "pair with scores": (
        {"prompt": "", "chosen": "4", "rejected": "5", "chosen_score": 1, "rejected_score": 0.5},
        ("pair", "", ("4", "5"), (1.0, 0.5)),
    ),
    "group": (
        {"prompt": "2+2?", "completions": ["4", "5", "4"], "scores": [1, 0.0, 0.5]},
        ("group", "2+2?", ("4", "5", "4"), (1.0, 0.0, 0.5)),
    ),
    "text": ({"text": "Four is even."}, ("text", "", ("Four is even.",), ())),
    "nulls of a union schema": (
        {"prompt": "2+2?", "completion": "4", "label": None, "chosen": None, "messages": None},
        ("demonstration", "2+2?", ("4",), ()),
    ),
    "unknown columns": (
        {"prompt": "2+2?", "completion": "4", "difficulty": 3, "source": "web"},
        ("demonstration", "2+2?", ("4",), ()),
    ),
    "a row's kind wins": (
        {"prompt": "2+2?", "completion": "4", "label": True, "score": 0.5, "kind": "score"},
        ("score", "2+2?", ("4",), (0.5,)),
    ),
    "text prompt, messages completion": (
        {"prompt": "2+2?", "completion": [FOUR]},
        ("demonstration", (USER,), ((FOUR,),), ()),
    ),
    "messages prompt, text completion": (
        {"prompt": [USER], "completion": "4", "score": 1},
        ("score", (USER,), ((FOUR,),), (1.0,)),
    ),
    "pair of whole conversations": (
        {"chosen": [USER, FOUR], "rejected": [USER, FIVE]},
        ("pair", (USER,), ((FOUR,), (FIVE,)), ()),
    ),
    "whole conversations with prompt, as UltraFeedback": (
        {
            "prompt": "2+2?",
            "chosen": [USER, FOUR],
            "rejected": [USER, FIVE],
            "messages": [USER, FOUR],
        },
        ("pair", (USER,), ((FOUR,), (FIVE,)), ()),
    ),
    "shared turns end before an assistant": (
        {"chosen": [USER, FOUR, WHY, FIVE], "rejected": [USER, FOUR]},
        ("pair", (USER,), ((FOUR, WHY, FIVE), (FOUR,)), ()),
    ),
    "several shared turns": (
        {"chosen": [USER, FIVE, WHY, FOUR], "rejected": [USER, FIVE, WHY, FIVE]},
        ("pair", (USER, FIVE, WHY), ((FOUR,), (FIVE,)), ()),
    ),
    "prompt messages repeated by the sides": (
        {"prompt": [USER], "chosen": [USER, FOUR], "rejected": [USER, FIVE]},
        ("pair", (USER,), ((FOUR,), (FIVE,)), ()),
    ),
    "pair of mixed forms": (
        {"prompt": "2+2?", "chosen": [FOUR], "rejected": "5"},
        ("pair", (USER,), ((FOUR,), (FIVE,)), ()),
    ),
}


@pytest.mark.parametrize("name", KINDS_OF_ROWS)
def test_a_row_becomes_the_record_it_states(name):
    row, expected = KINDS_OF_ROWS[name]
    got = record(row)
    assert (got.kind, got.prompt, got.completions, got.scores) == expected
    assert (got.weight, got.source, got.id, got.template) == (1.0, "plain", "file:1", {})


def test_optional_columns_reach_the_record():
    row = {
        "messages": [USER, FOUR],
        "weight": 2,
        "id": 17,
        "source": "not the stream's name",
        "tools": '[{"name": "add", "unit": null}]',
        "chat_template_kwargs": {"enable_thinking": False, "other": None},
    }
    got = record(row)
    assert (got.weight, got.id, got.source) == (2.0, "17", "plain")
    assert got.template == {"enable_thinking": False, "tools": [{"name": "add", "unit": None}]}


def test_an_empty_id_falls_back_to_where_the_row_stands():
    assert record({**DEMO, "id": ""}).id == "file:1"
    assert record({**DEMO, "id": 0}).id == "0"


def test_tool_calls_stand_for_content_and_null_keys_of_messages_are_dropped():
    """A null that a tool is called with was said on purpose, and stays."""
    call = {"id": None, "function": {"name": "add", "arguments": {"a": 2, "unit": None}}}
    asks = {"role": "assistant", "content": None, "tool_calls": [call], "name": None}
    told = {"role": "tool", "content": "4", "tool_calls": None, "name": "add"}
    (turns,) = record({"messages": [USER, asks, told, FOUR]}).completions
    kept = {"function": {"name": "add", "arguments": {"a": 2, "unit": None}}}
    assert turns[1] == {"role": "assistant", "content": None, "tool_calls": [kept]}
    assert turns[2] == {"role": "tool", "content": "4", "name": "add"}


def test_a_sources_kind_decides_and_names_what_is_missing():
    stream = Stream("scored", kind="score")
    assert record({**DEMO, "score": 1.0, "label": True}, stream).kind == "score"
    sentence = refusal({**DEMO, "label": True}, stream)
    assert "a score row needs `prompt`, `completion`, `score`" in sentence
    assert "`score` is missing, found 'prompt', 'completion', 'label'" in sentence
    assert record({"text": "x", "kind": "text"}, stream).kind == "text"


def test_explicit_demonstration_leaves_other_feedback_out():
    row = {**PAIR, "messages": [USER, FOUR], "score": 0.5}
    got = record(row, Stream("sft", kind="demonstration"))
    assert (got.kind, got.completions, got.scores) == ("demonstration", ((USER, FOUR),), ())


def test_renamed_columns_are_read_and_lose_their_own_meaning():
    stream = Stream("gsm8k", columns={"prompt": "question", "completion": "answer"})
    got = record({"question": "2+2?", "answer": "4", "prompt": "hidden"}, stream)
    assert (got.kind, got.prompt, got.completions) == ("demonstration", "2+2?", ("4",))
    sentence = refusal({"questoin": "2+2?", "answer": "4"}, stream)
    assert "`prompt` (here 'question') is missing" in sentence
    assert "{prompt: questoin}" in sentence


def test_columns_left_on_disk_are_named_in_the_message():
    assert "{completion: respone}" in refusal({"prompt": "2+2?"}, unread=("respone",))


def test_scores_of_pairs_and_groups_use_the_declared_range():
    stream = Stream(
        "ultrafeedback",
        columns={"chosen_score": "score_chosen", "rejected_score": "score_rejected"},
        score_range=(1, 10),
    )
    assert record({**PAIR, "score_chosen": 10, "score_rejected": 5.5}, stream).scores == (1, 0.5)
    assert record({**GROUP, "scores": [1, 10]}, stream).scores == (0.0, 1.0)
    assert "1 to 10" in refusal({**PAIR, "score_chosen": 10, "score_rejected": 0}, stream)


# HelpSteer2 by hand: (.65 h + .8 c + .45 k) / 7.6
@pytest.mark.parametrize(
    ("ratings", "score"),
    [
        ((4, 4, 4), 1.0),
        ((3, 4, 4), 6.95 / 7.6),
        ((3, 3, 4), 6.15 / 7.6),
        ((3, 3, 3), 0.75),
        ((2, 2, 2), 0.5),
        ((1, 1, 3), 2.8 / 7.6),
        ((0, 0, 0), 0.0),
    ],
)
def test_helpsteer_ratings_make_the_published_score(ratings, score):
    rated = dict(zip(("helpfulness", "correctness", "coherence"), ratings, strict=True))
    got = record({"prompt": "2+2?", "response": "4", "verbosity": 3, **rated}, HELPSTEER)
    assert got.kind == "score"
    assert got.scores[0] == pytest.approx(score, abs=1e-12)


def test_a_negative_rating_weight_is_a_penalty():
    stream = Stream("terse", score_range=(0, 4), ratings={"good": 1.0, "long": -0.5})
    scores = [
        record({**DEMO, "good": good, "long": long}, stream).scores[0]
        for good, long in ((4, 0), (0, 4), (4, 4), (2, 2))
    ]
    # (sum - worst) / (best - worst) with worst = -2 and best = 4
    assert scores == pytest.approx([1.0, 0.0, 4 / 6, 0.5])


def test_a_source_with_ratings_never_reads_a_row_without_them_as_a_demonstration():
    row = {"prompt": "2+2?", "response": "4", "helpfulness": 4, "correctness": None}
    sentence = refusal(row, HELPSTEER)
    assert "`correctness` is null" in sentence
    del row["helpfulness"]
    assert "`helpfulness` is missing" in refusal(row, HELPSTEER)
    rated = {"helpfulness": 4, "correctness": 5, "coherence": 4}
    assert "`correctness` must lie" in refusal({**row, **rated}, HELPSTEER)
    assert record({"prompt": "", "response": "4", "label": True}, HELPSTEER).kind == "label"
    assert "set `kind`" in refusal({**row, **rated, "label": True}, HELPSTEER)


ends = st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)).filter(lambda pair: pair[0] < pair[1])


@settings(deadline=None)
@given(ends, st.data())
def test_score_mapping_hits_the_ends_and_keeps_order(score_range, data):
    low, high = score_range
    first, second = sorted(data.draw(st.tuples(*[st.floats(low, high)] * 2)))
    stream = Stream("scores", score_range=score_range)
    bottom, below, above, top = (
        record({**DEMO, "score": value}, stream).scores[0] for value in (low, first, second, high)
    )
    assert 0.0 == bottom <= below <= above <= top == 1.0


leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from((*KINDS, "user", "assistant", "gpt"))
)
message_keys = st.sampled_from(("role", "content", "from", "value", "tool_calls"))
values = st.recursive(
    leaves,
    lambda held: (
        st.lists(held, max_size=3)
        | st.dictionaries(message_keys | st.text(max_size=3), held, max_size=4)
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=4), values, max_size=8))
def test_any_json_object_is_a_record_or_a_refusal(row):
    row = json.loads(json.dumps(row))
    try:
        got = record(row)
    except RowError:
        return
    assert len(got.scores) in (0, len(got.completions))
    assert all(0.0 <= score <= 1.0 for score in got.scores)
    assert all(isinstance(part, tuple) == got.is_chat for part in got.completions)
