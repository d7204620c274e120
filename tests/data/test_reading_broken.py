"""Broken lines are refused one by one; broken files and senseless sources end with one error."""

from __future__ import annotations

import gzip

import pytest
from support.rows import DEMO, PAIR, lines_of, read_all

from onestage.data.reading import read
from onestage.data.record import Record, Refusal


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"prompt": "2+2?" "completion": "4"}', ["delimiter", "column 19", "completion"]),
        (b'{"prompt": "2+2?"', ["column 18"]),
        (b'["prompt"]', ["must be a JSON object", "list ['prompt']"]),
        (b'{"prompt": "\xff"}', ["UTF-8", "0xff", "byte 13"]),
        (b"[" * 100_000, ["not readable JSON"]),
        (b'{"score": 1' + b"0" * 5000 + b"}", ["not readable JSON"]),
        (b'{"prompt": "2+2?", "respone": "4"}', ["found 'prompt', 'respone'"]),
    ],
)
def test_a_bad_line_is_refused_with_its_place_and_the_rest_is_read(write, line, words):
    path = write("a.jsonl", lines_of(DEMO) + line + b"\n" + lines_of(PAIR))
    first, bad, last = read_all(path)
    assert (first.kind, last.kind) == ("demonstration", "pair")
    assert isinstance(bad, Refusal)
    assert (bad.where, bad.tie) == ("a.jsonl:2", False)
    assert [word for word in words if word not in bad.reason] == [], bad.reason
    assert len(bad.reason) < 400


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("absent.jsonl", r"absent\.jsonl: no such file .*allowed.*owner/name"),
        ("preset.jsonll", r"did you mean 'preset.jsonl'"),
        ("table.orc", r"table\.orc: cannot read this kind.*\.parquet"),
        ("nothing", r"nothing: no file of rows in this folder"),
        ("*.absent", r"no such file"),
    ],
)
def test_a_path_without_rows_is_explained_at_once(write, tmp_path, name, words):
    write("preset.jsonl", lines_of(DEMO))
    write("table.orc", b"ORC")
    write("nothing/README.md", b"")
    with pytest.raises(ValueError, match=words):
        read(str(tmp_path / name))


@pytest.mark.parametrize("text", [b'[\n{"prompt": "a"}\n]\n', b'[{"prompt": "a"}]\n'])
def test_a_list_that_is_named_for_lines_is_told_its_name(write, text):
    with pytest.raises(ValueError, match=r"begins with a list: name the file \.json"):
        read_all(write("a.jsonl", text))


def test_an_empty_source_is_an_error(write):
    with pytest.raises(ValueError, match=r"a\.jsonl: no rows"):
        read_all(write("a.jsonl", b"\n\n"))


def test_a_cut_off_gzip_names_the_file_and_the_readable_rows(write):
    path = write("a.jsonl.gz", b"")
    whole = gzip.compress(lines_of(*[{**DEMO, "id": number * 7919} for number in range(50_000)]))
    path.write_bytes(whole[: len(whole) // 2])
    rows: list[Record | Refusal] = []
    with pytest.raises(ValueError, match=r"a\.jsonl\.gz: .* cut off") as caught:
        rows.extend(read(str(path)))  # keeps what came before the error
    assert 1000 < len(rows) < 50_000
    assert f"after {len(rows)} readable rows" in str(caught.value)
    path.write_bytes(b"not gzip at all")
    with pytest.raises(ValueError, match="after 0 readable rows"):
        read_all(path)


def test_a_damaged_parquet_or_list_names_the_file(write):
    with pytest.raises(ValueError, match=r"a\.parquet: cannot be read as Parquet"):
        read_all(write("a.parquet", b"PAR1 but not really"))
    with pytest.raises(ValueError, match=r"a\.json: starts as a JSON list.*line 1 column"):
        read_all(write("a.json", b'[{"text": "x"} {"text": "y"}]'))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"limit": 0}, "limit\n.*greater than or equal to 1"),
        ({"subset": "main"}, "subset needs a hub data set"),
        ({"streaming": True}, "streaming needs a hub data set"),
        ({"split": "test"}, "split 'test' needs a hub or saved data set"),
    ],
)
def test_an_option_that_cannot_be_honoured_is_refused(write, options, words):
    path = write("a.jsonl", lines_of(DEMO))
    with pytest.raises(ValueError, match=words):
        read(path, **options)
