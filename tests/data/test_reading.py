"""Files and data sets come out as records, and every row that does not is counted by a refusal."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.rows import DEMO, PAIR, lines_of, read_all

from onestage.data import files
from onestage.data.reading import content_key, read
from onestage.data.record import Record, Refusal
from onestage.data.stream import Stream

DATA = Path(__file__).parents[3] / "shared" / "data"


def ids(path: Path | str, **options) -> list[str]:
    return [record.id for record in read_all(path, **options)]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz", "a.json.gz"])
def test_json_lines_in_every_dress(write, name):
    path = write(name, b"\xef\xbb\xbf" + lines_of(DEMO) + b"\r\n  \n" + lines_of(PAIR))
    first, second = read_all(path)
    assert (first.kind, first.id, first.source) == ("demonstration", f"{name}:1", "plain")
    assert (second.kind, second.id) == ("pair", f"{name}:4")


@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
def test_a_json_file_may_be_one_list(write, name):
    first, second, third = read_all(write(name, json.dumps([DEMO, 3, PAIR], indent=1).encode()))
    assert (first.kind, first.id) == ("demonstration", f"{name}[0]")
    assert second == Refusal(f"{name}[1]", "a row must be a JSON object, found int 3")
    assert (third.kind, third.id) == ("pair", f"{name}[2]")


def test_ties_are_told_from_mistakes(write):
    tie = {**PAIR, "rejected": "4"}
    contradiction = {**PAIR, "chosen_score": 0, "rejected_score": 1}
    refused = read_all(write("a.jsonl", lines_of(tie, contradiction)))
    assert [refusal.tie for refusal in refused] == [True, False]


def test_limit_counts_accepted_rows(write):
    path = write("a.jsonl", lines_of(DEMO, {"prompt": 1}, DEMO, DEMO))
    rows = read_all(path, limit=2)
    assert [isinstance(row, Refusal) for row in rows] == [False, True, False]


def test_parquet_rows_are_numbered_across_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "BATCH_ROWS", 2)
    path = tmp_path / "a.parquet"
    rows = [DEMO, PAIR, {**DEMO, "extra": 1}, {"prompt": "2+2?"}, DEMO]
    columns = ("prompt", "completion", "chosen", "rejected", "extra")
    pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in columns}), path)
    got = read_all(path)
    kinds = [row.kind if isinstance(row, Record) else row.where for row in got]
    assert kinds == ["demonstration", "pair", "demonstration", "a.parquet[3]", "demonstration"]
    assert "'extra'" in got[3].reason
    assert got[4].id == "a.parquet[4]"


def test_parquet_leaves_unknown_columns_on_disk(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"prompt": ["2+2?"], "completion": ["4"], "image": [b"\0"]}), path)
    asked = []
    original = pq.ParquetFile.iter_batches

    def spy(self, batch_size, columns):
        asked.append(columns)
        return original(self, batch_size=batch_size, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    assert [row.kind for row in read_all(path)] == ["demonstration"]
    assert asked == [["prompt", "completion"]]


def test_parquet_without_a_known_column_is_refused_row_by_row(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"respone": ["4", "5"]}), path)
    assert ["'respone'" in row.reason for row in read_all(path)] == [True, True]


words = st.text(min_size=1, max_size=8).filter(str.strip)
turn = st.fixed_dictionaries({"role": st.just("user"), "content": words})
answer = st.fixed_dictionaries({"role": st.just("assistant"), "content": words})
unit = st.floats(0, 1)
rows_of_any_kind = st.one_of(
    # In a table a demonstration beside scored responses is an unlabelled one, unless it says its kind.
    st.fixed_dictionaries(
        {"prompt": words, "completion": words, "kind": st.just("demonstration")},
        optional={"score": unit},
    ),
    st.fixed_dictionaries({"prompt": words, "completion": words, "score": unit}),
    st.fixed_dictionaries({"prompt": words, "completion": words, "label": st.booleans()}),
    st.fixed_dictionaries({"prompt": words, "chosen": words, "rejected": words}),
    st.fixed_dictionaries(
        {
            "prompt": words,
            "completions": st.lists(words, min_size=2, max_size=2),
            "scores": st.lists(unit, min_size=2, max_size=2),
        }
    ),
    st.fixed_dictionaries({"messages": st.tuples(turn, answer).map(list)}),
    st.fixed_dictionaries({"text": words}, optional={"weight": st.floats(0.1, 9)}),
)


@settings(deadline=None, max_examples=40)
@given(st.lists(rows_of_any_kind, min_size=1, max_size=6))
def test_json_lines_and_parquet_hold_the_same_records(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("round")
    rows = [{**row, "id": number} for number, row in enumerate(rows)]
    (folder / "a.jsonl").write_bytes(lines_of(*rows))
    names = {name for row in rows for name in row}
    table = pa.table({name: [row.get(name) for row in rows] for name in sorted(names)})
    pq.write_table(table, folder / "a.parquet")

    def outcomes(name: str) -> list:
        got = read_all(folder / name)
        return [row if isinstance(row, Record) else (row.reason, row.tie) for row in got]

    assert outcomes("a.jsonl") == outcomes("a.parquet")


def test_a_folder_and_a_pattern_are_read_in_order(write, tmp_path):
    write("set/b/2.jsonl", lines_of(PAIR))
    write("set/a.jsonl.gz", lines_of(DEMO))
    write("set/README.md", b"# not rows")
    write("set/.cache/a.jsonl", lines_of(DEMO))
    write("set/dataset_infos.json", b"{}")
    assert ids(tmp_path / "set") == ["a.jsonl.gz:1", "b/2.jsonl:1"]
    assert ids(tmp_path / "set" / "**" / "*.jsonl") == ["b/2.jsonl:1"]


def test_a_folder_of_several_splits_is_refused(write, tmp_path):
    write("set/pairs.train.jsonl", lines_of(PAIR))
    write("set/pairs.test.jsonl", lines_of(PAIR))
    with pytest.raises(ValueError, match=r"several splits \(test, train\)"):
        read(str(tmp_path / "set"))
    assert ids(tmp_path / "set" / "*train*") == ["pairs.train.jsonl:1"]


def test_a_saved_data_set_is_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = {"prompt": ["2+2?", "3+3?"], "completion": ["4", None], "note": ["a", "b"]}
    train = datasets.Dataset.from_dict(rows)
    train.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": train, "test": train.select([0])}).save_to_disk(tmp_path / "two")
    good, bad = read_all(tmp_path / "one")
    assert (good.kind, good.prompt, good.id) == ("demonstration", "2+2?", "one/train[0]")
    assert bad.where == "one/train[1]"
    assert "'note'" in bad.reason
    assert ids(tmp_path / "two", split="test") == ["two/test[0]"]
    with pytest.raises(ValueError, match="no split 'valid', found test, train"):
        read_all(tmp_path / "two", split="valid")
    with pytest.raises(ValueError, match="no split 'test'"):
        read_all(tmp_path / "one", split="test")


@pytest.fixture
def hub_in_reach(monkeypatch):
    monkeypatch.setattr("onestage.data.reach._out_of_reach", lambda: None)


@pytest.mark.usefixtures("hub_in_reach")
@pytest.mark.parametrize("streaming", [False, True])
def test_a_hub_name_is_loaded_with_what_was_asked_for(monkeypatch, streaming):
    datasets = pytest.importorskip("datasets")
    asked = []

    def load_dataset(*names, **options):
        asked.append((names, options))
        rows = datasets.Dataset.from_list([dict.fromkeys(DEMO) | PAIR, DEMO])
        return rows.to_iterable_dataset() if options["streaming"] else rows

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    options = {"subset": "main", "split": "test", "streaming": streaming}
    got = read_all("owner/name", **options)
    assert asked == [(("owner/name", "main"), {"split": "test", "streaming": streaming})]
    assert [(row.kind, row.id) for row in got] == [
        ("pair", "owner/name/test[0]"),
        ("demonstration", "owner/name/test[1]"),
    ]
    key = content_key(Stream("owner/name", **options))
    assert (key is None) == streaming


@pytest.mark.parametrize("name", ["./absent", "../absent", "absent", "owner/absent.jsonl", "a/b/c"])
def test_what_cannot_be_a_hub_name_is_looked_for_on_disk_only(name):
    with pytest.raises(ValueError, match="no such file or folder"):
        read(name)


@pytest.mark.usefixtures("hub_in_reach")
def test_a_hub_failure_says_what_was_asked_for(monkeypatch):
    datasets = pytest.importorskip("datasets")

    def load_dataset(*names, **options):
        raise FileNotFoundError("no such data set")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(ValueError, match=r"owner/name: .*split 'train'.*no such data set"):
        read("owner/name")


def test_plain_files_do_not_import_datasets(write):
    import subprocess
    import sys

    path = write("a.jsonl", lines_of(DEMO))
    code = (
        "import sys; from onestage.data.reading import read; "
        f"rows = list(read({str(path)!r})); assert len(rows) == 1; "
        "print([name for name in ('datasets', 'torch') if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert run.stdout == "[]\n", run.stderr


def test_the_content_key_follows_content_and_options_but_not_the_place(write):
    path = write("one/a.jsonl", lines_of(DEMO))
    same = write("two/a.jsonl", lines_of(DEMO))
    other = write("three/a.jsonl", lines_of(PAIR))
    base = content_key(Stream(path))
    assert content_key(Stream(same)) == base
    changed = [
        Stream(other),
        Stream(path, limit=1),
        Stream(path, name="other"),
        Stream(path, kind="demonstration"),
        Stream(path, columns={"prompt": "question"}),
        Stream(path, score_range=(0, 2)),
        Stream(path, ratings={"good": 1.0}),
    ]
    assert len({base, *map(content_key, changed)}) == 1 + len(changed)


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data is not here")
@pytest.mark.parametrize(
    ("name", "rename", "expected"),
    [
        ("gpteacher_roleplay.eval", {}, {"demonstration": 300}),
        ("hh_harmless_pairs.eval", {}, {"pair": 300}),
        ("alpaca_eval_scored.eval", {}, {"group": 205}),
        (
            "gsm8k.test",
            {"prompt": "question", "completion": "answer"},
            {"demonstration": 1319},
        ),
        ("ifeval_prompts", {}, {"Refusal": 541}),
    ],
)
def test_real_data_is_read_whole(name, rename, expected):
    rows = read_all(DATA / f"{name}.jsonl.gz", columns=rename)
    counted = Counter(row.kind if isinstance(row, Record) else "Refusal" for row in rows)
    assert counted == expected
