"""A row that is not trained on is refused in one sentence: what was found, what is allowed."""

from __future__ import annotations

import math

import pytest
from support.rows import DEMO, FIVE, FOUR, GROUP, PAIR, PLAIN, USER, WHY

from onestage.data._row_error import RowError
from onestage.data.rows import record_of
from onestage.data.stream import Stream

# row -> words that its refusal must say
BAD_ROWS = {
    "score above range": ({**DEMO, "score": 7}, ["`score`", "0 to 1", "found 7"]),
    "score below range": ({**DEMO, "score": -0.1}, ["0 to 1", "found -0.1"]),
    "score nan": ({**DEMO, "score": math.nan}, ["`score`", "found nan, which is no number"]),
    "score infinite": ({**DEMO, "score": math.inf}, ["`score`", "inf"]),
    "score huge": ({**DEMO, "score": 10**400}, ["`score`", "0 to 1"]),
    "score bool": ({**DEMO, "score": True}, ["`score`", "number", "bool True"]),
    "score text": ({**DEMO, "score": "half"}, ["`score`", "number", "str 'half'"]),
    "score nan in words": ({**DEMO, "score": "nan"}, ["`score`", "number", "str 'nan'"]),
    "label text": ({**DEMO, "label": "maybe"}, ["`label`", "true or false", "str 'maybe'"]),
    "label other": ({**DEMO, "label": 2}, ["`label`", "int 2"]),
    "label nan": ({**DEMO, "label": math.nan}, ["`label`", "float nan"]),
    "label and score": (
        {**DEMO, "label": True, "score": 1.0},
        ["`label`", "`score`", "set `kind`"],
    ),
    "label and score, no kind uses both": (
        {**DEMO, "label": 1, "score": 1, "kind": "pair"},
        ["a pair row needs", "`chosen` is missing", "'completion'"],
    ),
    "completion and pair": (
        {**DEMO, "chosen": "4", "rejected": "5"},
        ["`completion` (demonstration)", "`chosen`, `rejected` (pair)", "set `kind`"],
    ),
    "pair and group": ({**PAIR, **GROUP}, ["(pair)", "(group)", "set `kind`"]),
    "messages that are not the chosen ones": (
        {**PAIR, "messages": [USER, FOUR]},
        ["`messages` (demonstration)", "(pair)"],
    ),
    "feedback that nobody reads": (
        {"messages": [USER, FOUR], "score": 0.5},
        ["`score` beside `messages`", "set `kind` to demonstration", "prompt, completion, score"],
    ),
    "scores without completions": ({**DEMO, "scores": [1]}, ["`scores` beside `completion`"]),
    "text with a label": ({"text": "x", "label": 1}, ["`label` beside `text`"]),
    "text beside a prompt": (
        {"prompt": "2+2?", "text": "4"},
        ["`prompt` beside `text`", "{completion: text}"],
    ),
    "solution of numbers": (
        {"prompt": "2+2?", "solution": [1, 2]},
        ["`solution` must be a text or a list of sentences"],
    ),
    "completion that is not the solution": (
        {"prompt": "2+2?", "solution": ["a", "b"], "completion": "b", "kind": "check"},
        ["`completion` must begin with the sentences of `solution`"],
    ),
    "score of a problem": (
        {"prompt": "2+2?", "answer": "4", "score": 1},
        ["`score` beside `answer`"],
    ),
    "kind unknown": ({**DEMO, "kind": "sft"}, ["`kind`", "demonstration, score", "'sft'"]),
    "kind unhashable": ({**DEMO, "kind": ["pair"]}, ["`kind`", "list ['pair']"]),
    "several answers of one prompt": (
        {"prompt": "2+2?", "response_0": "4", "response_1": "5", "better": 0},
        ["found 'prompt', 'response_0', 'response_1', 'better'"],
    ),
    "chat under another name": (
        {"conversation": [USER, FOUR]},
        ["did you mean columns: {messages: conversation}?"],
    ),
    "a call of older times": (
        {"messages": [USER, {"role": "assistant", "function_call": {"name": "f"}}]},
        ["`messages[1]` has no content: `function_call` is not read: give it as `tool_calls`"],
    ),
    "rows within an object": (
        {"version": 1, "data": [DEMO, DEMO]},
        ["found 'version', 'data'", "jq -c '.data[]' FILE"],
    ),
    "rows within an object, under two words": (
        {"my rows": [DEMO, DEMO]},
        ["""jq -c '.["my rows"][]' FILE"""],
    ),
    "no columns": ({}, ["found no column that is not null"]),
    "misspelt column": (
        {"prompt": "2+2?", "respone": "4"},
        ["found 'prompt', 'respone'", "did you mean columns: {completion: respone}?"],
    ),
    "other name": (
        {"question": "2+2?", "completion": "4"},
        ["`prompt` is missing", "'question', 'completion'", "columns: {prompt: question}?"],
    ),
    "null column": ({**PAIR, "rejected": None}, ["a pair row needs", "`rejected` is null"]),
    "pair without prompt": ({"chosen": "4", "rejected": "5"}, ["`prompt` is missing"]),
    "one score of a pair": ({**PAIR, "chosen_score": 1}, ["`rejected_score` is missing"]),
    "contradictory pair": (
        {**PAIR, "chosen_score": 0.2, "rejected_score": 0.3},
        ["`chosen_score` must be above", "0.2 and 0.3"],
    ),
    "group of one": (
        {**GROUP, "completions": ["4"], "scores": [1.0]},
        ["two or more", "found 1 completions and 1 scores"],
    ),
    "group of unequal lengths": ({**GROUP, "scores": [1.0]}, ["found 2 completions and 1 scores"]),
    "group with a bad score": ({**GROUP, "scores": [1.0, None]}, ["scores[1]", "NoneType"]),
    "group with an empty answer": ({**GROUP, "completions": ["4", " "]}, ["completions[1]"]),
    "group not listed": ({**GROUP, "completions": "45"}, ["`completions` must be a list"]),
    "empty response": ({**DEMO, "completion": " \n"}, ["`completion` is empty"]),
    "empty text": ({"text": ""}, ["`text` is empty"]),
    "number as text": ({**DEMO, "completion": 4}, ["`completion`", "text", "int 4"]),
    "lone surrogate": ({**DEMO, "completion": "4\ud800"}, ["valid Unicode", r"\ud800"]),
    "lone surrogate in an id": ({**DEMO, "id": "4\ud800"}, ["`id`", "valid Unicode"]),
    "lone surrogate in a solution": (
        {"prompt": "2+2?", "solution": "It is\ud800. 4.", "answer": "4"},
        ["`solution`", "valid Unicode"],
    ),
    "lone surrogate in a sentence": (
        {"prompt": "2+2?", "solution": ["It is", "\ud800"], "answer": "4"},
        ["`solution`", "valid Unicode"],
    ),
    "weight 0": ({**DEMO, "weight": 0}, ["`weight`", "above 0", "found 0"]),
    "weight infinite": ({**DEMO, "weight": math.inf}, ["`weight`", "finite"]),
    "weight nan": ({**DEMO, "weight": math.nan}, ["`weight`", "finite"]),
    "weight bool": ({**DEMO, "weight": True}, ["`weight`", "number"]),
    "id of another type": ({**DEMO, "id": 1.5}, ["`id`", "text or an integer", "1.5"]),
    "tools not JSON": ({"messages": [USER, FOUR], "tools": "{"}, ["`tools`"]),
    "tools no list": ({"messages": [USER, FOUR], "tools": '{"a": 1}'}, ["`tools`", "list"]),
    "tools twice": (
        {"messages": [USER, FOUR], "tools": [{}], "chat_template_kwargs": {"tools": [{}]}},
        ["both as a column"],
    ),
    "alpaca with history": (
        {"instruction": "Add.", "output": "4", "history": [["a"]]},
        ["`history[0]`", "pair of question and answer"],
    ),
    "no messages": ({"messages": []}, ["`messages`", "non-empty"]),
    "messages end with the user": ({"messages": [USER]}, ["end with an assistant", "'user'"]),
    "unknown role": (
        {"messages": [{"role": "human", "content": "2+2?"}, FOUR]},
        ["`messages[0]`", "system, developer, user", "'human'"],
    ),
    "unhashable role": ({"messages": [{"role": [], "content": "x"}]}, ["`messages[0]`", "role"]),
    "message without content": ({"messages": [USER, {"role": "assistant"}]}, ["`messages[1]`"]),
    "content of parts": (
        {"messages": [{"role": "user", "content": [{"type": "text"}]}, FOUR]},
        ["`messages[0].content[0]`", '"type": "text"', "found dict"],
    ),
    "a picture among the parts": (
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, FOUR]},
        ["`messages[0].content[0]`", "image_url", "text only"],
    ),
    "pictures beside the text": ({**DEMO, "images": ["a.png"]}, ["`images`", "text only"]),
    "feedback of another tool": ({**DEMO, "kto_tag": False}, ["`kto_tag`", "onestage convert"]),
    "a call that is none": (
        {
            "conversations": [
                {"from": "human", "value": "x"},
                {"from": "function_call", "value": "f"},
            ]
        },
        ["function_call", "JSON of a call"],
    ),
    "silent assistant": (
        {"messages": [USER, {"role": "assistant", "content": ""}, WHY, FOUR]},
        ["`messages[1]`", "empty"],
    ),
    "message no object": ({"messages": ["2+2?"]}, ["`messages[0]`", "must be a message"]),
    "sharegpt unknown speaker": (
        {"conversations": [{"from": "alice", "value": "2+2?"}]},
        ["human", "gpt", "'alice'"],
    ),
    "prompt ends with the assistant": (
        {"prompt": [USER, FOUR], "completion": [FIVE]},
        ["`prompt` must not end with an assistant"],
    ),
    "completion starts with the user": (
        {"prompt": [USER], "completion": [USER, FOUR]},
        ["`completion` must start with an assistant", "`messages`"],
    ),
    "empty prompt, messages completion": ({"prompt": " ", "completion": [FOUR]}, ["`prompt`"]),
    "sides of different prompts": (
        {"chosen": [USER, FOUR], "rejected": [WHY, FIVE]},
        ["must share their prompt"],
    ),
    "one side whole": (
        {"prompt": "2+2?", "chosen": [USER, FOUR], "rejected": [FIVE]},
        ["one of `chosen` and `rejected`"],
    ),
    "prompt not in the conversations": (
        {"prompt": "3+3?", "chosen": [USER, FOUR], "rejected": [USER, FIVE]},
        ["`prompt` is no part", "3+3?"],
    ),
}


def test_of_several_answers_none_is_named_as_the_one_that_is_meant() -> None:
    row = {"question": "2+2?", "response_j": "4", "response_k": "5"}
    with pytest.raises(RowError) as caught:
        record_of(row, PLAIN, "file:1")
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_is_refused_in_one_sentence_with_what_was_found_and_what_is_allowed(name):
    row, words = BAD_ROWS[name]
    with pytest.raises(RowError) as caught:
        record_of(row, PLAIN, "file:1")
    sentence = str(caught.value)
    assert [word for word in words if word not in sentence] == [], sentence
    assert "\n" not in sentence
    assert not caught.value.tie


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "2+2?", "chosen": "4", "rejected": "4"},
        {"chosen": [USER, FOUR], "rejected": [USER, FOUR]},
        {**PAIR, "chosen_score": 0.5, "rejected_score": 0.5},
    ],
)
def test_a_tie_is_no_preference(row):
    with pytest.raises(RowError) as caught:
        record_of(row, PLAIN, "file:1")
    assert caught.value.tie


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "sft"}, "`kind` must be one of demonstration"),
        ({"columns": {"promt": "question"}}, "did you mean 'prompt'"),
        ({"columns": {"prompt": "a", "completion": "a"}}, "'a' is given two meanings"),
        ({"score_range": (1, 1)}, "two increasing finite numbers"),
        ({"score_range": (0, math.inf)}, "two increasing finite numbers"),
        ({"score_range": (1,)}, "two increasing finite numbers"),
        ({"ratings": {"good": 0}}, "'good' must have a finite weight"),
        ({"ratings": {"good": math.nan}}, "'good' must have a finite weight"),
    ],
)
def test_columns_that_cannot_be_understood_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Stream("bad", **options)
