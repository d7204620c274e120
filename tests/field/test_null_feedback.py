"""A response whose feedback is null was judged by nobody: never silently the best there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.rows import lines_of
from support.tiny import make_tokenizer
from typer.testing import CliRunner

from onestage.cli import app
from onestage.config import RecipeError
from onestage.data.inspect import beside
from onestage.data.reading import read
from onestage.data.record import Record
from onestage.data.store import Store, open_store, tokenizer_digest
from onestage.data.stream import Stream
from onestage.data.tokenize import Encoder
from onestage.training.read import check_rows, read_data
from onestage.training.recipe import Train

ASKED = {"prompt": "Help me.", "completion": "Go away."}
CHAT = {
    "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Go away."}]
}
LABELLED = [{**ASKED, "label": good} for good in (True, False, True, True)]
SCORED = [{**ASKED, "score": score} for score in (0.1, 0.5)]


def table(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """A Parquet file, in which every row has every column."""
    names = sorted({name for row in rows for name in row})
    path = folder / "rows.parquet"
    pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), path)
    return path


def lines(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "rows.jsonl"
    path.write_bytes(lines_of(*rows))
    return path


def outcomes(given: Any, **options: Any) -> list[str]:
    return [
        item.kind if isinstance(item, Record) else "unlabelled" if item.unlabelled else "refused"
        for item in read(given, **options)
    ]


UNJUDGED: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "label": ([*LABELLED, {**ASKED, "label": None}], {}),
    "score": ([*SCORED, {**ASKED, "score": None}], {}),
    "renamed": (
        [{**ASKED, "liked": True}, {**ASKED, "liked": None}],
        {"columns": {"label": "liked"}},
    ),
    "alpaca": (
        [
            {"instruction": "Help.", "output": "No.", "score": 0.5},
            {"instruction": "Help.", "output": "No.", "score": None},
        ],
        {},
    ),
    "ratings": (
        [{**ASKED, "good": 1, "kind_": 1}, {**ASKED, "good": None, "kind_": None}],
        {"ratings": {"good": 1.0, "kind_": 1.0}},
    ),
    "one of two ratings": (
        [{**ASKED, "good": 1, "kind_": 1}, {**ASKED, "good": 1, "kind_": None}],
        {"ratings": {"good": 1.0, "kind_": 1.0}},
    ),
    "kind of the stream": ([*LABELLED, {**ASKED, "label": None}], {"kind": "label"}),
    "two columns": ([*LABELLED, *SCORED, {**ASKED, "label": None, "score": None}], {}),
}


@pytest.mark.parametrize("put", [lines, table, lambda folder, rows: rows])
@pytest.mark.parametrize("name", UNJUDGED)
def test_null_feedback_is_left_out_imitated_or_refused(name: str, put: Any, tmp_path: Path) -> None:
    rows, options = UNJUDGED[name]
    given = put(tmp_path, rows)
    *judged, last = outcomes(given, **options)
    assert set(judged) <= {"label", "score"}
    assert last == "unlabelled"
    assert outcomes(given, unlabelled="demonstration", **options) == [*judged, "demonstration"]
    assert outcomes(given, unlabelled="refuse", **options) == [*judged, "refused"]
    stated = [*rows[:-1], {**rows[-1], "kind": "demonstration"}]
    assert outcomes(put(tmp_path, stated), **options)[-1] == "demonstration"


def test_a_conversation_with_a_null_label_is_no_demonstration(tmp_path: Path) -> None:
    assert outcomes([{**CHAT, "label": None}]) == ["unlabelled"]
    assert outcomes(lines(tmp_path, [{**CHAT, "score": None}, CHAT])) == [
        "unlabelled",
        "demonstration",
    ]


def test_in_a_table_a_null_means_another_kind_where_no_response_has_that_feedback(
    tmp_path: Path,
) -> None:
    pair = {"prompt": "a", "chosen": "b", "rejected": "c"}
    assert outcomes(table(tmp_path, [ASKED, pair, CHAT])) == [
        "demonstration",
        "pair",
        "demonstration",
    ]
    # labels are of completions, so a conversation beside them is not meant
    rows = [*LABELLED[:1], CHAT, pair]
    assert outcomes(table(tmp_path, rows)) == ["label", "demonstration", "pair"]
    # a JSON row with the columns of all kinds is out of such a table
    names = {name for row in [*rows, ASKED] for name in row}
    whole = [dict.fromkeys(names) | row for row in rows]
    assert outcomes(lines(tmp_path, whole)) == ["label", "demonstration", "pair"]
    assert outcomes(lines(tmp_path, [*whole, dict.fromkeys(names) | ASKED]))[-1] == "unlabelled"
    alone = [{**ASKED, "label": None}]
    assert outcomes(table(tmp_path, alone)) == ["demonstration"]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({**ASKED, "score": float("nan")}, "must lie in the declared range"),
        ({**ASKED, "label": float("nan")}, "true or false"),
        ({"prompt": "a", "chosen": "b", "rejected": None}, "`rejected` is null"),
        ({"prompt": "a", "chosen": None, "rejected": "b"}, "`chosen` is null"),
        ({"prompt": "a", "completions": ["b", "c"], "scores": [1.0, None]}, "scores[1]"),
        ({"prompt": "a", "completions": ["b", "c"], "scores": None}, "`scores` is null"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "chosen_score": None,
          "rejected_score": 0.5}, "`chosen_score` is null"),
    ],
)  # fmt: skip
def test_what_is_half_judged_is_refused(row: dict[str, Any], why: str) -> None:
    (refused,) = read([row])
    assert not isinstance(refused, Record)
    assert not refused.unlabelled
    assert why in refused.reason


def stored(folder: Path, given: Any, **options: Any) -> Store:
    tokenizer = make_tokenizer()
    stream = Stream(given, name="rows", **options)
    store, _ = open_store(
        stream, Encoder(tokenizer, 100), folder / "cache", tokenizer_digest(tokenizer)
    )
    return store


def test_what_is_left_out_is_counted_and_said(tmp_path: Path) -> None:
    rows = [*LABELLED, *({**ASKED, "label": None} for _ in range(3))]
    for _ in range(2):  # encoded, and found encoded
        found = stored(tmp_path, lines(tmp_path, rows)).table
        assert (found.records, found.unlabelled, found.refused) == ({"label": 4}, 3, 0)
    assert "3 responses have null feedback" in beside(found)[0][0]
    said: list[str] = []
    streams = [Stream(str(tmp_path / "rows.jsonl"))]
    read_data(streams, [], Encoder(make_tokenizer(), 100), tmp_path / "cache", said.append)
    assert "3 unlabelled" in said[0]
    run = CliRunner().invoke(app, ["check", str(tmp_path / "rows.jsonl")])
    assert "3 unlabelled" in run.output


def test_a_source_of_nulls_only_trains_nothing(tmp_path: Path) -> None:
    streams = [Stream(lines(tmp_path, [{**ASKED, "label": None}] * 2))]
    data = read_data(
        streams, [], Encoder(make_tokenizer(), 100), tmp_path / "cache", lambda line: None
    )
    with pytest.raises(RecipeError, match="2 unlabelled"):
        check_rows(data, Train())


COLUMNS = {
    "images": "",
    "rejected_response": "rejected",
    "score_chosen": "chosen_score",
    "chosen-rating": "chosen_score",
    "chosenScore": "chosen_score",
    "rating": "score",
    "thumbs_up": "label",
    "lable": "label",
    "language": "",
    "model": "",
}


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("put", [lines, table])
def test_columns_that_are_not_used_are_named_once(
    column: str, put: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = put(tmp_path, [{**ASKED, column: 1}] * 3)
    assert list(read(path))
    found = stored(tmp_path, path).table
    assert found.unused == {column: COLUMNS[column]}
    run = CliRunner().invoke(app, ["check", str(path)])
    assert run.output.count(repr(column)) == 1
    if COLUMNS[column]:
        assert f"columns: {{{COLUMNS[column]}: {column}}}" in " ".join(run.output.split())


def test_columns_of_problems_are_facts_and_those_of_other_rows_are_used() -> None:
    problems = read([{"prompt": "2+2?", "answer": "4", "language": "en"}])
    assert list(problems)
    assert problems.unused() == {}
    mixed = read([ASKED, {"prompt": "a", "chosen": "b", "rejected": "c", "weight": 2}])
    assert list(mixed)
    assert mixed.unused() == {}


def test_files_that_hold_no_rows_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for name in ("a.jsonl", "b.csv", "deep/README.md", ".cache/a.jsonl", "deep/c.jsonl"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(lines_of(ASKED))
    table = stored(tmp_path, folder).table
    assert table.records == {"demonstration": 2}
    assert (table.skipped, table.skipped_files) == (2, ["b.csv", "deep/README.md"])
    assert stored(tmp_path, str(folder / "*")).table.skipped_files == ["b.csv"]
    assert stored(tmp_path, folder / "a.jsonl").table.skipped == 0
    assert "b.csv, deep/README.md" in beside(table)[1][0]


def test_scoring_asks_nobody_what_a_response_is_worth(model_folder: Path, tmp_path: Path) -> None:
    path, out = lines(tmp_path, [*LABELLED, {**ASKED, "label": None}]), tmp_path / "out.jsonl"
    run = CliRunner().invoke(
        app, ["score", "--data", str(path), "--model", str(model_folder), "--out", str(out)]
    )
    assert run.exit_code == 0, run.output
    assert len(out.read_text().splitlines()) == 5
