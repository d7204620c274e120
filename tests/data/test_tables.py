"""CSV, TSV, workbooks, plain text and addresses: read as they are, or named in one line."""

from __future__ import annotations

import csv
import io
import json
import os
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import fsspec
import openpyxl
import pytest
from support.rows import read_all

from onestage.data import lines, remote
from onestage.data.prompts import prompts_of
from onestage.data.reading import content_key, raw_rows, read, skipped
from onestage.data.record import Record
from onestage.data.stream import Stream

ROWS = [
    ("prompt", "completion", "score"),
    ('Say "hi",\nplease', "hi; there", "0.5"),
    ("Ünicode\u2028?", "\t|", "1"),
]


def table(rows=ROWS, **how) -> str:
    text = io.StringIO()
    csv.writer(text, **how).writerows(rows)
    return text.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("a.csv", table().encode(), {}),
        ("a.csv", b"\xef\xbb\xbf" + table(lineterminator="\n").encode(), {}),
        ("a.csv.gz", table().encode(), {}),
        ("a.tsv", table(delimiter="\t").encode(), {}),
        ("a.csv", table(delimiter=";").encode(), {"delimiter": ";"}),
        ("a.csv", table(quoting=csv.QUOTE_ALL).encode("utf-16"), {"encoding": "utf-16"}),
        ("a.csv", ("\r\n" + table()).encode(), {}),
    ],
)
def test_a_table_of_text_is_read_in_every_dress(write, name, content, options):
    first, second = read_all(write(name, content), **options)
    assert (first.prompt, first.completions, first.scores) == (ROWS[1][0], (ROWS[1][1],), (0.5,))
    assert (second.prompt, second.completions, second.scores) == (ROWS[2][0], (ROWS[2][1],), (1.0,))


def test_a_row_is_named_by_the_line_where_it_begins(write):
    assert [row.id for row in read_all(write("a.csv", table().encode()))] == ["a.csv:2", "a.csv:4"]


def test_json_lines_in_another_encoding(write):
    row = {"prompt": "é\u2028", "completion": "ü"}
    content = (json.dumps(row, ensure_ascii=False) + "\n") * 3000
    for encoding in ("utf-16", "utf-8-sig"):
        records = read_all(write("a.jsonl", content.encode(encoding)), encoding=encoding)
        assert [(r.prompt, r.completions) for r in records] == [("é\u2028", ("ü",))] * 3000
    (found,) = read_all(write("b.csv", "text\né\n".encode("cp1252")), encoding="cp1252")
    assert found.completions == ("é",)


WRONG = {
    "semicolons": ("a.csv", "prompt;completion\na;b\n", {}, "semicolon: say delimiter: ';'"),
    "tabs": ("a.csv", "prompt\tcompletion\na\tb\n", {}, r"tab: say delimiter: '\\t'"),
    "latin 1": ("a.csv", "text\n\xe9\n".encode("latin-1"), {}, r"a\.csv:2: .*byte 0xe9.*cp1252"),
    "utf-16": ("a.csv", "text\nx\n".encode("utf-16"), {}, "looks like UTF-16.*encoding: utf-16"),
    "utf-16 unmarked": ("a.csv", "text\nx\n".encode("utf-16-be"), {}, "encoding: utf-16-be"),
    "utf-32": ("a.csv", "text\nx\n".encode("utf-32"), {}, "looks like UTF-32.*encoding: utf-32"),
    "no text": ("a.csv", b"\x89PNG\r\n\x1a\n" + b"0" * 40 + b"\0", {}, "it is no file of text"),
    "carriage returns": ("a.csv", "text\rx\r", {}, "save it with line feeds"),
    "a web page": ("a.csv", "<html><table>\n", {}, "looks like a web page, not like a table"),
    "an older workbook": ("a.xlsx", b"\xd0\xcf\x11\xe0" + b"0" * 600, {}, r"workbook \(.xls\)"),
    "text as a workbook": ("a.xlsx", "text\nx\n", {}, "a file of text: name it .csv"),
    "not what was said": ("a.csv", b"text\n\xff\n", {"encoding": "utf-8"}, "is not utf-8"),
    "no encoding": ("a.csv", "text\nx", {"encoding": "utf-99"}, "no encoding 'utf-99'"),
    "long separator": ("a.csv", "text\nx", {"delimiter": "::"}, "one sign such as ';'"),
    "unclosed": ("a.csv", 'text\n"a\nb\n', {}, r"a\.csv:2: a quote that opens .* never closed"),
    "nothing": ("a.csv", "\n\n", {}, "no rows, the source is empty"),
    "only a header": ("a.csv", "prompt,completion\n", {}, "no rows"),
    "twice": ("a.csv", "text,text\na,b\n", {}, "column 'text' stands there twice"),
    "merged": ("a.csv", "prompt,,score\na,b,1\n", {}, "column 2 has no name in line 1"),
    "JSON": ("a.csv", '{"text": "x"}\n', {}, "looks like JSON"),
    "no header": ("a.csv", "x" * 101 + ",4\n", {}, "line 1 must name the columns"),
    "delimiter of JSON": ("a.jsonl", '{"text": "x"}', {"delimiter": ";"}, "needs a .csv or .tsv"),
    "a sheet of a table": ("a.csv", "text\nx", {"subset": "S"}, "subset needs a hub data set"),
    "cut off": ("a.csv.gz", "", {}, "cut off or damaged after 0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_table_is_one_line_with_the_way_out(write, name):
    file, content, options, words = WRONG[name]
    path = write(file, content.encode() if isinstance(content, str) else content)
    if name == "cut off":
        path.write_bytes(path.read_bytes()[:12])
    with pytest.raises(ValueError, match=words) as caught:
        list(read(path, **options))
    assert "\n" not in str(caught.value) or options  # pydantic tells an option in lines of its own


def test_a_broken_row_of_a_table_is_refused_and_the_rest_is_read(write):
    content = 'prompt,completion\na,b\nc\nd,e,f\n"g"h,i\nj,k,,\n'
    got = read_all(write("a.csv", content.encode()))
    assert [row.id if isinstance(row, Record) else row.where for row in got] == [
        *("a.csv:2", "a.csv:3", "a.csv:4", "a.csv:5", "a.csv:6")
    ]
    assert [isinstance(row, Record) for row in got] == [True, False, False, False, True]
    assert "has 1 cells, and line 1 names 2 columns" in got[1].reason


@pytest.mark.parametrize("line", ["sep=;", '"sep=;"', "SEP=;", "sep=\t", '"sep=\t"'])
def test_a_line_that_names_the_separator_is_heeded(write, line):
    sign = line.strip('"')[-1]
    content = f"{line}\r\nprompt{sign}completion\r\na,1{sign}b\r\nc\r\n".encode()
    first, second = read_all(write("a.csv", content))
    assert (first.id, first.prompt, first.completions) == ("a.csv:3", "a,1", ("b",))
    assert second.where == "a.csv:4"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("Ratings of 2026\nprompt,completion\na,b\n", "without a title above them"),
        ("prompt,completion\na, b,c\n", "a cell that holds a delimiter quotes"),
    ],
)
def test_more_cells_than_names_say_what_to_do(write, content, words):
    assert words in read_all(write("a.csv", content.encode()))[0].reason


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"prompt": "a", "completion": "b"},\n', "one object a line, without a comma behind it"),
        ('{"rows": [\n{"text": "a"}\n]}\n', "one object over several lines"),
    ],
)
def test_json_of_other_shapes_is_named(write, content, words):
    path = write("a.json", content.encode())
    try:
        told = read_all(path)[0].reason
    except ValueError as error:
        told = str(error)
    assert words in told


def test_a_refused_value_makes_no_column_another(write):
    reading = read(write("a.csv", b"prompt,completion,score\na,b,many\n"))
    assert len(list(reading)) == 1
    assert reading.unused() == {}


def test_an_index_of_pandas_is_a_column_like_any_other(write):
    reading = read(write("a.csv", b",text\n0,x\n1,y\n"))
    assert len(list(reading)) == 2
    assert reading.unused() == {"Unnamed: 0": ""}


def test_pretty_printed_json_says_how_rows_stand(write):
    for name in ("a.json", "a.jsonl"):
        with pytest.raises(ValueError, match=r"one object over several lines: .*jq -c"):
            read_all(write(name, json.dumps({"data": [{"text": "x"}]}, indent=1).encode()))


def test_a_csv_of_lines_that_name_json_says_how_it_is_named(write):
    (refused,) = read_all(write("a.jsonl", b"prompt,completion\n"))
    assert "a table of commas is named .csv" in refused.reason


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_a_line_without_end_is_named(write, monkeypatch, name):
    monkeypatch.setattr(lines, "LONGEST", 64)
    long, short = b'{"text": "' + b"x" * 300 + b'"}\n', b'{"text": "y"}\n'
    if name == "a.jsonl":
        refused, record = read_all(write(name, long + short))
        assert "a line of 64 bytes or more is no row" in refused.reason
        assert record.id == "a.jsonl:2"
        return
    with pytest.raises(ValueError, match=r"a\.csv:2: a line of 64 bytes"):
        read_all(write(name, b"text\n" + b"x" * 300))


def workbook(path: Path, **sheets) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def test_a_workbook_is_read(tmp_path):
    rows = [("prompt", "completion", "score"), ("2+2?", "4", 1), (None,) * 3, ("3?", "5", 0.25)]
    path = workbook(tmp_path / "a.xlsx", Empty=[], Ratings=rows)
    first, second = read_all(path)
    assert (first.id, first.scores) == ("a.xlsx:2", (1.0,))
    assert (second.id, second.completions, second.scores) == ("a.xlsx:4", ("5",), (0.25,))


def test_a_workbook_that_is_unclear_says_so(tmp_path):
    text = [("text",), ("x",)]
    several = workbook(tmp_path / "a.xlsx", One=text, Two=[("text",), ("y",)])
    with pytest.raises(ValueError, match=r"several sheets .*\(One, Two\).*subset: One"):
        read_all(several)
    assert read_all(several, subset="Two")[0].completions == ("y",)
    with pytest.raises(ValueError, match="no sheet 'Three', found One, Two"):
        read_all(several, subset="Three")
    with pytest.raises(ValueError, match="every sheet is empty"):
        read_all(workbook(tmp_path / "b.xlsx", One=[]))
    (tmp_path / "c.xlsx").write_bytes(b"PK no")
    with pytest.raises(ValueError, match=r"cannot be read as \.xlsx"):
        read_all(tmp_path / "c.xlsx")
    merged = openpyxl.Workbook()
    merged.active.append(("prompt and answer", None, "score"))
    merged.active.append(("a", "b", 1))
    merged.active.merge_cells("A1:B1")
    merged.save(tmp_path / "d.xlsx")
    with pytest.raises(ValueError, match="column 2 has no name in line 1"):
        read_all(tmp_path / "d.xlsx")


def test_a_formula_that_was_never_computed_is_refused(tmp_path):
    rows = [("prompt", "completion", "score"), ("a", "b", "=1/2"), ("c", "d", 1)]
    refused, record = read_all(workbook(tmp_path / "a.xlsx", One=rows))
    assert "'score' holds the formula '=1/2'" in refused.reason
    assert isinstance(record, Record)


def test_a_text_file_is_one_text_and_prompts_are_lines(write):
    path = write("a.txt", b"\xef\xbb\xbfOne.\n\nTwo.\n")
    (record,) = read_all(path)
    assert (record.kind, record.completions) == ("text", ("One.\n\nTwo.\n",))
    assert [one.turns for one in prompts_of(str(path))] == ["One.", "Two."]


def test_a_folder_is_read_for_its_most_telling_files(write, tmp_path):
    write("set/a.txt", b"x")
    write("set/b.txt", b"y")
    assert [row.id for row in read_all(tmp_path / "set")] == ["a.txt", "b.txt"]
    write("set/c.csv", b"text\nz\n")
    assert [row.id for row in read_all(tmp_path / "set")] == ["c.csv:2"]
    assert skipped(Stream(tmp_path / "set")) == ["a.txt", "b.txt"]


def test_files_elsewhere_are_fetched_once_and_again_when_they_change(tmp_path, monkeypatch):
    monkeypatch.setenv("ONESTAGE_CACHE", str(tmp_path))
    store = fsspec.filesystem("memory")
    store.pipe("/bucket/set/a.jsonl", b'{"text": "x"}\n')
    store.pipe("/bucket/set/notes.md", b"no")
    one, folder = "memory://bucket/set/a.jsonl", "memory://bucket/set"
    assert [row.id for row in read_all(one)] == ["a.jsonl:1"]
    before = content_key(Stream(folder))
    store.pipe("/bucket/set/a.jsonl", b'{"text": "x"}\n{"text": "y"}\n')
    assert len(read_all("memory://bucket/set/*.jsonl")) == 2
    assert content_key(Stream(folder)) != before
    assert skipped(Stream(folder)) == ["notes.md"]
    with pytest.raises(ValueError, match="memory://bucket/none: no file of rows there"):
        read("memory://bucket/none")


def test_a_file_on_the_web_is_fetched_again_when_it_changes(tmp_path, monkeypatch):
    pytest.importorskip("aiohttp", reason="fsspec reads https:// by it")
    monkeypatch.setenv("ONESTAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    (tmp_path / "site").mkdir()
    page = tmp_path / "site" / "a.jsonl"
    quiet = partial(SimpleHTTPRequestHandler, directory=str(page.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), quiet) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        for count in (1, 2, 2):
            page.write_text('{"text": "x"}\n' * count)
            assert len(read_all(f"http://127.0.0.1:{server.server_port}/a.jsonl")) == count
        server.shutdown()
    assert len(list((tmp_path / "cache" / "remote").rglob("a.jsonl"))) == 2


def test_versions_that_nobody_reads_any_more_leave_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ONESTAGE_CACHE", str(tmp_path))
    store = fsspec.filesystem("memory")
    for text in ("x", "xx", "xxx"):
        for kept in tmp_path.glob("remote/*/*"):
            os.utime(kept, (1e9, 1e9)) if text == "xxx" else None
        store.pipe("/bucket/versions/a.jsonl", b'{"text": "%s"}\n' % text.encode())
        read_all("memory://bucket/versions/a.jsonl")
        assert len(list(tmp_path.rglob("a.jsonl"))) == {"x": 1, "xx": 2, "xxx": 1}[text]
    (kept,) = tmp_path.rglob("a.jsonl")
    assert "xxx" in kept.read_text()


def test_a_version_that_another_process_clears_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "iterdir", lambda self: iter([self / "gone"]))
    remote._clear(tmp_path, tmp_path / "newest")


@pytest.mark.parametrize("name", ["base64", "rot13", "undefined", "klingon", "utf\0"])
def test_what_is_no_encoding_of_text_is_refused(name):
    with pytest.raises(ValueError, match=r"no encoding .*; usual ones are utf-16"):
        Stream("a.csv", encoding=name)


def test_an_address_that_needs_a_package_names_it():
    with pytest.raises(ValueError, match=r"s3://bucket/a\.jsonl: .*pip install s3fs"):
        read("s3://bucket/a.jsonl")
    with pytest.raises(ValueError, match="Protocol not known"):
        read("nowhere://bucket/a.jsonl")


def test_a_whole_data_set_by_its_address_is_the_hub_s():
    assert Stream("hf://datasets/owner/name", name="x").path == "owner/name"
    assert Stream("hf://datasets/owner/name/a.csv").path == "hf://datasets/owner/name/a.csv"


def test_every_row_of_a_table_has_every_column(write):
    (row,) = raw_rows(Stream(write("a.csv", b"prompt,completion,score\na,b,\n")))
    assert (row.in_table, row.columns["score"]) == (True, None)
