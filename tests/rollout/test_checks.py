"""Checkable problems from rows to token ids, and to hints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny import make_tokenizer, write_rows

from onestage.data.encoded import Encoded, ProblemFacts
from onestage.data.reading import read
from onestage.data.record import ROLES, Record, Refusal
from onestage.data.rows import record_of
from onestage.data.store import open_store, tokenizer_digest
from onestage.data.stream import Stream
from onestage.data.tokenize import Encoder
from onestage.rollout.engines import Completion
from onestage.rollout.group import Group, HintChosen, choose_hint
from onestage.rollout.hints import make as make_hint

STEPS = ["2 + 3 = 5\n", "5 * 4 = 20\n", "Therefore, (2 + 3) * 4"]
ROW = {
    "prompt": "2 3 4 = 20\n",
    "solution": STEPS,
    "completion": "".join(STEPS) + "\n<answer> (2 + 3) * 4 </answer>",
    "answer": "(2 + 3) * 4",
    "nums": [2, 3, 4],
    "target": 20,
}


def encoded(row=ROW, room: int = 16, max_length: int = 256, **changes) -> Encoded:
    record = record_of({**row, **changes}, Stream("c", kind="check"), "row")
    found = Encoder(make_tokenizer(), max_length, room=room).encode(record)
    assert isinstance(found, Encoded), found
    return found


def test_a_row_keeps_its_facts_and_steps() -> None:
    record = record_of(ROW, Stream("c", kind="check"), "row")
    assert record.kind == "check"
    assert record.solution == tuple(STEPS)
    assert record.facts == {"answer": "(2 + 3) * 4", "nums": [2, 3, 4], "target": 20}


@pytest.mark.parametrize("column", ["answer", "solution", "target"])
def test_a_problem_is_known_by_what_can_be_checked(column: str) -> None:
    assert record_of({"prompt": "2+2?", column: "4"}, Stream("c"), "row").kind == "check"


def test_a_response_beside_an_answer_is_a_demonstration() -> None:
    row = {"prompt": "2+2?", "completion": "four", "answer": "4"}
    assert record_of(row, Stream("c"), "row").kind == "demonstration"
    assert record_of(row, Stream("c", kind="check"), "row").kind == "check"


def test_a_solution_given_as_text_is_cut_at_lines_and_sentences() -> None:
    text = "2 + 2.5\n= 4.5. That is it.\n"
    record = record_of({"prompt": "2+2.5?", "solution": text}, Stream("c"), "row")
    assert record.solution == ("2 + 2.5\n", "= 4.5. ", "That is it.\n")


def test_parquet_keeps_the_columns_that_rewards_look_at(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist([ROW]), file)
    (record,) = read(file, kind="check")
    assert isinstance(record, Record)
    assert record.facts["nums"] == [2, 3, 4]


def test_the_prompt_is_what_is_continued_and_the_worked_answer_a_demonstration() -> None:
    tokenizer, record = make_tokenizer(), encoded()
    prompt, worked = record.paths
    assert prompt.ids.tolist() == tokenizer(ROW["prompt"]).input_ids
    assert prompt.spans == ()
    rest = tokenizer(ROW["completion"], add_special_tokens=False).input_ids
    assert worked.ids.tolist() == [*prompt.ids, *rest, tokenizer.eos_token_id]
    assert worked.spans[0][0] == len(prompt.ids)
    assert worked.spans[-1][1] == len(worked.ids)
    assert all(a[1] == b[0] for a, b in zip(worked.spans, worked.spans[1:], strict=False))
    texts = [tokenizer.decode(worked.ids[a:b]) for a, b in worked.spans]
    assert texts[:3] == STEPS
    assert texts[3] == "\n<answer> (2 + 3) * 4 </answer></s>"
    assert record.is_problem
    assert ProblemFacts.load(record.about).facts["target"] == 20


def test_messages_are_prompted_by_the_template_and_end_as_it_ends_turns() -> None:
    tokenizer = make_tokenizer()
    record = encoded(
        {"prompt": [{"role": "user", "content": "2+2?"}], "solution": ["It is ", "4."]}
    )
    prompt, worked = record.paths
    assert tokenizer.decode(prompt.ids) == "<s><|user|>\n2+2?</s>\n<|assistant|>\n"
    assert tokenizer.decode(worked.ids[len(prompt.ids) :]) == "It is 4.</s>"
    assert len(worked.spans) == 3  # two sentences, and the end


def test_a_problem_without_a_solution_has_a_prompt_alone() -> None:
    record = encoded({"prompt": "2+2?", "answer": "4"})
    assert len(record.paths) == 1
    hint = choose_hint(make_hint("uniform"), record, 0, "key", {})
    assert hint == HintChosen()


def test_what_leaves_no_room_for_a_completion_is_refused_not_cut() -> None:
    record = record_of(ROW, Stream("c", kind="check"), "row")
    length = len(encoded().paths[1].ids)
    refusal = Encoder(make_tokenizer(), length + 5, room=40).encode(record)
    assert isinstance(refusal, Refusal)
    assert refusal.overlong
    assert "behind prompt and longest hint" in refusal.reason
    fits = Encoder(make_tokenizer(), length + 40, room=40).encode(record)
    assert isinstance(fits, Encoded)


def test_the_store_gives_problems_back(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", [ROW, {"prompt": "2+2?", "answer": "4", "id": "b"}])
    stream = Stream(file, kind="check")
    tokenizer = make_tokenizer()
    store, _ = open_store(
        stream, Encoder(tokenizer, 256, room=8), tmp_path, tokenizer_digest(tokenizer)
    )
    first, second = store
    assert first.about == encoded().about
    assert [p.spans for p in first.paths] == [p.spans for p in encoded().paths]
    assert second.id == "b"
    assert ProblemFacts.load(second.about).facts == {"answer": "4"}
    assert store.table.records == {"check": 2}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text("ab 1+=\né漢", min_size=1, max_size=12), min_size=1, max_size=12),
    st.integers(0, 400),
    st.integers(0, 9),
)
def test_a_hint_is_a_beginning_of_the_solution(steps: list[str], rollout: int, visit: int) -> None:
    tokenizer = make_tokenizer()
    record = encoded({"prompt": "go ", "solution": steps})
    rule = make_hint("cosine")
    hint = choose_hint(rule, record, rollout, f"key{visit}", {})
    again = choose_hint(rule, record, rollout, f"key{visit}", {})
    assert hint == again
    prompt, worked = record.paths
    given_ids = worked.ids[len(prompt.ids) : len(prompt.ids) + hint.tokens]
    assert tokenizer.eos_token_id not in given_ids.tolist()
    whole = "".join(steps).encode()
    assert whole.startswith(tokenizer.decode(given_ids).encode().rstrip(b"\xef\xbf\xbd"))


def completion(*ids: int, ended: bool = True) -> Completion:
    return Completion(np.asarray(ids, np.int32), ended, np.zeros(len(ids), np.float32))


def test_a_group_shares_one_hint_which_is_scored_once() -> None:
    tokenizer, record = make_tokenizer(), encoded()
    rule = make_hint("cosine")
    edge = record.paths[1].spans[0][1] - len(record.paths[0].ids)
    group = Group.of(record, HintChosen(1, 3, edge), rule, "key", 3)
    assert [(len(r.ids), r.count) for r in group.requests] == [(len(record.paths[0].ids) + edge, 3)]
    group.drawn = [[completion(40, 1), completion(41, 42, 1), completion(43, ended=False)]]
    group.read(tokenizer, worked=True)
    assert [answer.hint for answer in group.answers] == [STEPS[0]] * 3 + [""]
    assert [answer.ended for answer in group.answers] == [True, True, False, True]
    assert group.answers[3].completion == ROW["completion"]
    group.totals = [1.0, 0.1, 0.0, 0.9]
    paths, roles, scores = group.responses()
    assert [ROLES[role] for role in roles] == ["hint", *["response"] * 3, "worked"]
    assert np.isnan(scores[0])
    assert scores[1:] == [1.0, 0.1, 0.0, 0.9]
    start = len(record.paths[0].ids)
    assert paths[0].spans == ((start, start + edge), (start + edge, start + edge + 2))
    assert paths[0].responses == (0, 1)
    assert [path.responses for path in paths[1:3]] == [(2,), (3,)]
    assert {number for number in paths[3].responses} == {4}
    assert len({path.ids[: start + edge].tobytes() for path in paths[:3]}) == 1


def test_a_rule_may_hint_one_completion_of_the_group() -> None:
    record = encoded()
    rule = make_hint("prefix")
    group = Group.of(record, HintChosen(4, 20, 4), rule, "key", 3)
    assert [(len(r.ids) - len(record.paths[0].ids), r.count) for r in group.requests] == [
        (0, 2),
        (4, 1),
    ]
    group.drawn = [[completion(40, 1), completion(41, 1)], [completion(42, 1)]]
    group.totals = [0.0, 0.1, 1.0]
    _, roles, scores = group.responses()
    assert [ROLES[role] for role in roles] == ["response", "response", "hint", "response"]
    assert scores[3] == 1.0


def test_a_problem_has_no_response_to_score() -> None:
    record = record_of(ROW, Stream("c", kind="check"), "row")
    (refusal,) = Encoder(make_tokenizer(), 256).encode_responses([record])
    assert isinstance(refusal, Refusal)
    assert "kind: demonstration" in refusal.reason
    worked = record_of(ROW, Stream("c", kind="demonstration"), "row")
    (found,) = Encoder(make_tokenizer(), 256).encode_responses([worked])
    assert isinstance(found, Encoded)
