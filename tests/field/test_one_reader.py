"""Every file of rows, prompts and logged lines is cut at line feeds alone, and says what is wrong."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tiny import write_recipe
from typer.testing import CliRunner

from onestage.cli import app
from onestage.config import RecipeError, override, read_yaml
from onestage.data.prompts import prompts_of
from onestage.data.reading import read
from onestage.data.record import Record
from onestage.report.reading import Reader
from onestage.runfolder import RunFolder, json_line, read_metrics
from onestage.training.recipe import load_recipe

SEPARATORS = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\x1dh\x1ei"
"""Everything that `str.splitlines` cuts at, but for line feeds and carriage returns."""
BOM = b"\xef\xbb\xbf"


def lines_of(*rows: Any) -> bytes:
    """As other writers have them: nothing is escaped that JSON allows."""
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def records(path: Path) -> list[Record]:
    found = list(read(path))
    assert all(isinstance(one, Record) for one in found), found
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("mark", [b"", BOM])
def test_rows_and_prompts_are_cut_at_line_feeds_alone(
    end: bytes, mark: bytes, tmp_path: Path
) -> None:
    rows = [{"prompt": SEPARATORS, "completion": "yes"}, {"prompt": "two", "completion": "no"}]
    content = mark + lines_of(*rows).replace(b"\n", end)
    for name, packed in (("a.jsonl", content), ("a.jsonl.gz", gzip.compress(content))):
        (tmp_path / name).write_bytes(packed)
        assert [record.prompt for record in records(tmp_path / name)] == [SEPARATORS, "two"]
        assert [one.turns for one in prompts_of(str(tmp_path / name))] == [SEPARATORS, "two"]
    text = tmp_path / "a.txt"
    text.write_bytes(mark + SEPARATORS.encode() + end + end + b"  two " + end)
    assert [one.turns for one in prompts_of(str(text))] == [SEPARATORS, "  two "]


def test_files_that_were_put_together_may_have_marks_in_the_middle(tmp_path: Path) -> None:
    row = {"prompt": "one", "completion": "yes"}
    (tmp_path / "a.jsonl").write_bytes((BOM + lines_of(row)) * 3)
    assert [record.prompt for record in records(tmp_path / "a.jsonl")] == ["one"] * 3
    (tmp_path / "a.json").write_bytes(BOM + json.dumps([row, row]).encode())
    assert len(records(tmp_path / "a.json")) == 2


ROW = {"prompt": "one", "completion": "yes"}
UNREADABLE = {
    "UTF-16 with a mark": (json.dumps(ROW).encode("utf-16"), "looks like UTF-16"),
    "UTF-16 without one": (json.dumps(ROW).encode("utf-16-le"), "looks like UTF-16"),
    "UTF-32": (json.dumps(ROW).encode("utf-32"), "looks like UTF-32"),
    "Latin 1": (json.dumps({**ROW, "prompt": "\xe9"}, ensure_ascii=False).encode("latin-1"),
                "a.jsonl:1: a line must be UTF-8, found byte 0xe9"),
    "carriage returns alone": (lines_of(ROW, ROW).replace(b"\n", b"\r"), "carriage return alone"),
    "NUL in a text": (b'{"prompt": "' + b"x" * 80 + b'\0", "completion": "b"}\n',
                      "Invalid control character"),
    "a key twice": (b'{"prompt": "a", "completion": "b", "prompt": "c"}\n',
                    "a.jsonl:1: not readable JSON: the key 'prompt' stands there twice"),
    "a key twice inside": (b'{"messages": [{"role": "user", "content": "a", "content": "b"}]}\n',
                           "the key 'content' stands there twice"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_said_with_its_place(name: str, tmp_path: Path) -> None:
    content, said = UNREADABLE[name]
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    shown = " ".join(CliRunner().invoke(app, ["check", str(path)]).output.split())
    assert said in shown
    assert "Traceback" not in shown
    with pytest.raises(ValueError, match=r"a\.jsonl"):
        prompts_of(str(path))


def test_a_list_with_a_key_twice_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"prompt": "a", "prompt": "b", "completion": "c"}]')
    with pytest.raises(ValueError, match=r"a\.json: .*'prompt' stands there twice"):
        list(read(path))


def test_a_table_with_a_column_twice_is_refused(tmp_path: Path) -> None:
    table = pa.table([["a"], ["b"], ["c"]], names=["prompt", "completion", "prompt"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet: column 'prompt' stands there twice"):
        list(read(tmp_path / "a.parquet"))


PROMPTS = {
    "a.jsonl": (b'{"question": "a"}\n', "a.jsonl:1: expected an object with `prompt`, found quest"),
    "b.jsonl": (b"[]\n", "starts as a JSON list|must be a JSON object"),
    "c.jsonl": (b'{"prompt": 3}\n', "c.jsonl:1: `prompt`"),
    "d.txt": (b"good\n\xff\n", "d.txt:2: a line must be UTF-8"),
    "e.txt": (b"\n \n", "holds no prompt"),
    "f.txt": ("a\n".encode("utf-16"), "looks like UTF-16"),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts_that_cannot_be_read(name: str, tmp_path: Path) -> None:
    content, said = PROMPTS[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=said):
        prompts_of(str(tmp_path / name))


def test_prompts_may_stand_in_a_table_and_be_messages(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": SEPARATORS}]
    pq.write_table(pa.table({"prompt": [SEPARATORS, "two"]}), tmp_path / "a.parquet")
    assert [one.turns for one in prompts_of(str(tmp_path / "a.parquet"))] == [SEPARATORS, "two"]
    (tmp_path / "a.jsonl").write_bytes(lines_of({"prompt": chat}))
    (found,) = (one.turns for one in prompts_of(str(tmp_path / "a.jsonl")))
    assert [dict(turn) for turn in found if not isinstance(turn, str)] == chat
    said = [{"from": "human", "value": SEPARATORS}, {"from": "gpt", "value": "yes"}]
    answered = [*chat, {"role": "assistant", "content": "yes"}]
    (tmp_path / "b.jsonl").write_bytes(lines_of({"messages": answered}, {"conversations": said}))
    for found in (one.turns for one in prompts_of(str(tmp_path / "b.jsonl"))):
        assert [dict(turn) for turn in found if not isinstance(turn, str)] == chat


def test_sample_answers_every_prompt_once(model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes(BOM + SEPARATORS.encode() + b"\r\ntwo\r\n")
    done = CliRunner().invoke(
        app,
        [
            *("sample", "--model", str(model_folder), "--prompts", str(tmp_path / "p.txt")),
            *("--out", str(tmp_path / "out.jsonl"), "--max-new-tokens", "2"),
        ],
    )
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_bytes().split(b"\n") if line]
    assert [row["prompt"] for row in rows] == [SEPARATORS, "two"]


@given(st.text() | st.just(SEPARATORS) | st.just("\ud800 lone"))
def test_a_logged_line_is_one_line_to_every_reader(text: str) -> None:
    line = json_line({"step": 1, "text": text}).encode("utf-8", "backslashreplace").decode()
    assert line.splitlines() == [line.removesuffix("\n")]
    assert json.loads(line) == {"step": 1, "text": text}


def test_samples_and_metrics_survive_a_resume(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    texts = [SEPARATORS, "\ud800", "\u4f60\u597d"]
    for step, text in enumerate(texts, 1):
        folder.log({"step": step, "loss": 1.0})
        folder.samples(step, [{"prompt": text, "completions": [text]}])
    file = folder.folder / "samples.jsonl"
    assert "\u4f60\u597d" in file.read_text(encoding="utf-8")  # for people
    # a line that was cut off inside of a character, and one as other versions wrote it
    old = json.dumps({"step": 2, "prompt": SEPARATORS}, ensure_ascii=False).encode()
    file.write_bytes(
        file.read_bytes() + old + b"\n" + '{"step": 3, "prompt": "\u4f60'.encode()[:-1]
    )
    folder.rewind(2)
    kept = [json.loads(line) for line in file.read_bytes().split(b"\n") if line]
    assert [one["prompt"] for one in kept] == [*texts[:2], SEPARATORS]
    assert [line["step"] for line in read_metrics(folder.folder)] == [1, 2]
    reader = Reader()
    assert [one["prompt"] for one in reader.lines(file, "run")] == [*texts[:2], SEPARATORS]
    assert reader.troubles == []


def test_a_key_that_stands_twice_in_a_recipe_is_named_with_its_line(tmp_path: Path) -> None:
    for text in (
        "model: a\ndata: {x: y}\ntrain:\n  seed: 1\n  seed: 2\n",
        "model: a\ntrain: {seed: 3}\ndata: {x: y}\n\ntrain: {seed: 4}\n",
    ):
        (tmp_path / "r.yaml").write_text(text)
        with pytest.raises(
            RecipeError, match=r"r\.yaml, line 5: '(seed|train)' stands there twice"
        ):
            load_recipe(tmp_path / "r.yaml")
    with pytest.raises(RecipeError, match="'a' stands there twice"):
        override({}, "objective={a: 1, a: 2}")


def test_recipes_are_utf_8_with_or_without_a_mark(tmp_path: Path) -> None:
    file = write_recipe(tmp_path / "r.yaml", {"model": "a", "data": {"x": "y"}})
    file.write_bytes(BOM + file.read_bytes())
    assert read_yaml(file, "recipe", ["model"])["model"] == "a"
    file.write_bytes("model: a".encode("utf-16"))
    with pytest.raises(RecipeError, match="is not YAML"):
        read_yaml(file, "recipe", ["model"])
