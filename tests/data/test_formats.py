"""Other people's rows become ours: each format by a row made after its description, and whole files."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.rows import lines_of, read_all
from support.shapes import FIVE, FOUR, OURS, SHAPES, USER
from typer.testing import CliRunner

from onestage.cli import app
from onestage.data.convert import convert
from onestage.data.formats import Format, make, names
from onestage.data.reading import read
from onestage.data.recognise import advice, flags, formats_of
from onestage.data.record import Record
from onestage.data.rows import record_of
from onestage.data.stream import Stream
from onestage.data.writing import row_of


def rows_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def converted(write, tmp_path, *rows, name="a.jsonl", **options):
    stream = Stream(write(name, lines_of(*rows)), **options)
    found = convert(stream, tmp_path / "out.jsonl")
    return found, rows_in(tmp_path / "out.jsonl")


@pytest.mark.parametrize("name", SHAPES)
def test_a_row_is_recognised_by_its_format_alone(name):
    assert formats_of(SHAPES[name].row) == [SHAPES[name].form]


@pytest.mark.parametrize("name", OURS)
def test_a_row_of_ours_is_no_other_format_s(name):
    assert formats_of(OURS[name]) == []


def test_every_row_here_is_of_a_format_that_is_there():
    assert {shape.form for shape in SHAPES.values()} | {"lines"} <= set(names())


@pytest.mark.parametrize("name", SHAPES)
def test_what_a_format_becomes(name, write, tmp_path):
    shape = SHAPES[name]
    found, rows = converted(write, tmp_path, shape.row)
    assert [{k: v for k, v in row.items() if k != "id"} for row in rows] == [
        {k: pytest.approx(v) if k in ("score", "scores") else v for k, v in row.items()}
        for row in shape.becomes
    ]
    assert (sum(found.written.values()), found.left_out) == (len(rows), {})
    assert all(isinstance(record, Record) for record in read_all(tmp_path / "out.jsonl"))


@pytest.mark.parametrize("name", OURS)
def test_a_record_written_as_a_row_is_read_as_the_same_record(name):
    stream = Stream("plain")
    record = record_of(OURS[name], stream, "a.jsonl:1")
    again = record_of(json.loads(json.dumps(row_of(record))), stream, "b.jsonl:1")
    assert again == record


def test_ties_and_what_nobody_answered_are_left_out_by_reason(write, tmp_path):
    arena, argilla = SHAPES["Chatbot Arena"].row, SHAPES["Argilla 2 records"].row
    found, rows = converted(
        *(write, tmp_path, arena),
        *(
            {**arena, "winner": winner}
            for winner in ("tie", "tie (bothbad)", "both_bad", "model_c")
        ),
        {**argilla, "responses": {}},
    )
    assert len(rows) == 1
    assert sorted(found.left_out.values()) == [1, 1, 3]
    left = rows_in(found.left_out_in)
    assert [one["where"] for one in left] == [f"a.jsonl:{line}" for line in (2, 3, 4, 5, 6)]
    assert left[0]["row"]["winner"] == "tie"
    assert "found str 'model_c'" in left[3]["reason"]


def test_a_row_that_two_formats_claim_is_nobody_s_until_somebody_says(write, tmp_path):
    row = {**SHAPES["Anthropic HH"].row, "instruction": "2+2?"}
    assert sorted(formats_of(row)) == ["hh", "llama_factory"]
    with pytest.raises(ValueError, match="looks like hh and like llama_factory: say --from hh"):
        converted(write, tmp_path, row)
    convert(Stream(write("a.jsonl", lines_of(row))), tmp_path / "out.jsonl", make("hh"))
    assert rows_in(tmp_path / "out.jsonl")[0]["chosen"] == [FOUR]


def test_pictures_and_feedback_of_other_tools_are_seen_in_tables_too(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = {
        "prompt": ["a", "b", "c"],
        "completion": ["x", "y", "z"],
        "images": [["a.png"], [], None],
        "kto_tag": [None, None, False],
    }
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    picture, plain, tagged = read_all(tmp_path / "a.parquet")
    assert "found `images` in the row: onestage trains on text only" in picture.reason
    assert isinstance(plain, Record)
    assert "found `kto_tag`" in tagged.reason


def test_a_malformed_row_is_left_out_and_says_of_which_format(write, tmp_path):
    shp = SHAPES["SHP"].row
    found, rows = converted(write, tmp_path, shp, {**shp, "labels": 2}, {**shp, "human_ref_A": 3})
    assert len(rows) == 1
    assert "not a row of Shp after all (KeyError 2)" in found.left_out
    assert any("`rejected` must be text" in reason for reason in found.left_out)


def test_of_gemini_s_parts_thoughts_and_calls_are_refused_by_name(write, tmp_path):
    def asked(role: str, **part: Any) -> dict[str, Any]:
        turns = [{"parts": [{"text": "Hi"}]}, {"role": role, "parts": [part]}]
        return {"contents": [*turns, {"role": "model", "parts": [{"text": "Yes"}]}]}

    plain, thought = (
        asked("user", text="Sure?", thought=False),
        asked("model", text="", thought=True),
    )
    called = asked("function", functionResponse={"name": "f"})
    found, rows = converted(write, tmp_path, plain, thought, called)
    assert len(rows) == 1
    wrong = [reason.partition(":")[0] for reason in found.left_out]
    assert wrong == [f"a part of `contents` is {what}" for what in ("thought", "functionResponse")]


def test_a_file_of_many_kinds_with_broken_rows_is_converted_row_by_row(write, tmp_path):
    good = [shape.row for shape in SHAPES.values()] + list(OURS.values())
    broken = b'{"prompt": \n'
    content = lines_of(*good * 3) + broken + lines_of({"prompt": "?"})
    found = convert(Stream(write("a.jsonl", content)), tmp_path / "out.jsonl.gz")
    assert sum(found.formats.values()) == 3 * len(good) + 1
    assert sum(found.left_out.values()) == 2
    records = read_all(tmp_path / "out.jsonl.gz")
    assert len(records) == sum(found.written.values())
    assert all(isinstance(record, Record) for record in records)


def test_the_same_rows_give_the_same_file(write, tmp_path):
    stream = Stream(write("a.jsonl", lines_of(*OURS.values())))
    for name in ("b.jsonl.gz", "c.jsonl.gz"):
        convert(stream, tmp_path / name)
    assert (tmp_path / "b.jsonl.gz").read_bytes() == (tmp_path / "c.jsonl.gz").read_bytes()


def test_nothing_is_written_where_no_row_is_left(write, tmp_path):
    path = write("a.jsonl", lines_of({"prompt": "?"}, {"prompt": "!"}))
    with pytest.raises(ValueError, match="no row is left; of 2: a row needs"):
        convert(Stream(path), tmp_path / "out.jsonl")
    assert [file.name for file in tmp_path.iterdir()] == ["a.jsonl"]
    with pytest.raises(ValueError, match="read and written at once"):
        convert(Stream(path), path)
    for name in ("out.csv", "out.csv.gz"):
        with pytest.raises(ValueError, match=r"a \.jsonl or \.jsonl\.gz file"):
            convert(Stream(path), tmp_path / name)


def test_what_was_left_out_before_does_not_stay(write, tmp_path):
    found, _ = converted(write, tmp_path, OURS["pair"], {"prompt": "?"})
    assert found.left_out_in.name == "out.left_out.jsonl"
    assert found.left_out_in.exists()
    converted(write, tmp_path, OURS["pair"])
    assert not found.left_out_in.exists()


def test_a_text_a_line(write, tmp_path):
    stream = Stream(write("a.txt", b"One.\r\n\nTwo.\n"))
    convert(stream, tmp_path / "out.jsonl", make("lines"))
    assert [row["text"] for row in rows_in(tmp_path / "out.jsonl")] == ["One.", "Two."]


def test_scores_as_people_gave_them_need_their_range(write, tmp_path):
    argilla = {**SHAPES["Argilla 2 records"].row}
    argilla["responses"] = {"rating": [{"value": 4, "user_id": "u1"}]}
    with pytest.raises(ValueError, match=r"declared range 0 to 1, found 4: set `score_range`"):
        converted(write, tmp_path, argilla)
    _, rows = converted(write, tmp_path, argilla, score_range=(1, 5))
    assert rows[0]["score"] == 0.75


def test_a_format_that_knows_its_range_takes_no_other(write, tmp_path):
    with pytest.raises(ValueError, match="HelpSteer2 know the range of their ratings"):
        converted(write, tmp_path, SHAPES["HelpSteer2"].row, score_range=(1, 5))


def test_texts_of_a_tool_may_have_names_of_their_own(write, tmp_path):
    argilla = {**SHAPES["Argilla 2 records"].row, "fields": {"ask": "2+2?", "say": "4"}}
    columns = {"prompt": "ask", "completion": "say"}
    _, rows = converted(write, tmp_path, argilla, columns=columns)
    assert (rows[0]["prompt"], rows[0]["completion"]) == ("2+2?", "4")


@pytest.mark.parametrize(
    "more",
    [
        {"labels": [True, False]},
        {"winner": "model_a", "turn": 1},
        {"context": "c", "response": "r"},
        {"system": "s", "question": "q", "response": "r"},
    ],
)
def test_columns_beside_a_row_of_ours_make_no_other_format_of_it(more):
    for name in ("group", "pair", "messages"):
        assert formats_of({**OURS[name], **more}) == []


def test_the_hint_of_a_refused_row_names_the_format(write):
    for name in ("SHP", "Chatbot Arena", "UltraFeedback", "Anthropic HH", "HelpSteer3"):
        (refused,) = read_all(write("a.jsonl", lines_of(SHAPES[name].row)))
        said = f"this is a row of {SHAPES[name].form}: onestage convert FILE rows.jsonl"
        assert said in refused.reason
        assert "did you mean" not in refused.reason


def test_a_table_of_lists_as_text(write):
    shown = str([USER, FOUR])
    content = f'messages\n"{json.dumps([USER, FOUR]).replace(chr(34), chr(34) * 2)}"\n"{shown}"\n'
    for record in read_all(write("a.csv", content.encode())):
        assert record.completions == ((USER, FOUR),)
    (pair,) = read_all(
        write(
            "b.jsonl", lines_of({"chosen": json.dumps([USER, FOUR]), "rejected": str([USER, FIVE])})
        )
    )
    assert (pair.prompt, pair.completions) == ((USER,), ((FOUR,), (FIVE,)))
    (plain,) = read_all(write("c.jsonl", lines_of({"prompt": "[{", "completion": '[{"a": 1}]'})))
    assert plain.completions == ('[{"a": 1}]',)


def read_with(lines: list[str], path: Path) -> list[Any]:
    """The rows of a file, read as a block of advice says."""
    import yaml

    (options,) = yaml.safe_load("\n".join(lines[lines.index("data:") :]))["data"]
    assert options.pop("path") == str(path)
    return list(read(path, **options))


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"question": "2+2?", "response": "4", "rating": 4}, "score"),
        ({"instruction": "2+2?", "preferred": "4", "dispreferred": "5"}, "pair"),
        ({"query": "2+2?", "responses": ["4", "5"], "rewards": [10, -2]}, "group"),
        ({"prompt": "2+2?", "reply": "4", "thumbs_up": True}, "label"),
        ({"prompt": "2+2?", "completion": "4", "score": 4}, "score"),
        ({"prompt": "2+2?", "completion": "4", "rating": 4}, "score"),
        (SHAPES["HelpSteer2"].row, "score"),
    ],
)
def test_check_s_block_is_whole_and_reads_the_file(row, kind, write):
    path = write("a.jsonl", lines_of(row, row))
    assert [record.kind for record in read_with(advice(Stream(path)), path)] == [kind, kind]


def test_check_names_what_converts_and_leaves_alone_what_is_read(write):
    path = write("mine.jsonl", lines_of(SHAPES["SHP"].row))
    told = advice(Stream(path))
    assert told[0] == "1 of the first 1 rows are shp rows"
    assert f"onestage convert {path} mine.rows.jsonl" in told[1]
    for row in OURS.values():
        assert advice(Stream(write("a.jsonl", lines_of(row)))) == []


def test_check_s_command_is_told_what_check_was_told(tmp_path):
    shp = {**SHAPES["SHP"].row, "human_ref_A": "Gr\u00fcezi"}
    file = tmp_path / "my rows.csv"
    table = [list(shp), list(shp.values())]
    lines = [";".join(str(cell).replace(";", ",") for cell in cells) for cells in table]
    file.write_bytes("\n".join(lines).encode("cp1252"))
    told = advice(Stream(str(file), encoding="cp1252", delimiter=";"))
    command = shlex.split(told[-1].removeprefix("they are read after: "))
    assert command[:3] == ["onestage", "convert", str(file)]
    done = CliRunner().invoke(app, [*command[1:3], str(tmp_path / "rows.jsonl"), *command[4:]])
    assert done.exit_code == 0, done.output
    assert "Gr\u00fcezi" in (tmp_path / "rows.jsonl").read_text()


def test_a_range_is_told_to_the_last_digit():
    stream = Stream("a.jsonl", score_range=(-0.1, 1234567))
    assert flags(stream) == ["--score-range", "-0.1,1234567"]


def test_a_kind_that_recognised_rows_are_not_of_is_refused(write, tmp_path):
    path = write("a.jsonl", lines_of(SHAPES["SHP"].row))
    with pytest.raises(ValueError, match="a row of Shp becomes pair, not score: give no kind"):
        convert(Stream(path, kind="score"), tmp_path / "out.jsonl")
    assert convert(Stream(path, kind="pair"), tmp_path / "out.jsonl").written == {"pair": 1}


@pytest.mark.parametrize(
    ("row", "checker"),
    [
        ({"nums": [1, 2], "target": 3}, "countdown"),
        ({"question": "1 + 1?", "answer": "1 + 1 is 2.\n#### 2"}, "gsm8k"),
        ({"problem": "1 + 1?", "solution": "It is \\boxed{2}.", "level": "1"}, "math"),
    ],
)
def test_check_names_what_makes_problems(row, checker, write):
    path = write("mine.jsonl", lines_of(row, row))
    (told,) = advice(Stream(path))
    assert told.endswith(f"onestage problems {checker} {path} --out mine.problems.jsonl")


def test_a_format_of_somebody_s_own(write, tmp_path):
    @dataclass(frozen=True)
    class Votes(Format):
        better: str = "a"

        def recognises(self, row):
            return "vote" in row

        def rows(self, row):
            yield {"prompt": row["q"], "chosen": row["a"], "rejected": row["b"]}

    stream = Stream(write("a.jsonl", lines_of({"q": "2+2?", "a": "4", "b": "5", "vote": 1})))
    convert(stream, tmp_path / "out.jsonl", Votes())
    assert rows_in(tmp_path / "out.jsonl")[0]["chosen"] == "4"


MIXED = "prompt,completion,score,label,chosen,rejected,text\n"
MIXED_ROWS = (
    "2+2?,4,0.5,,,,\n"
    "2+2?,4,,yes,,,\n"
    "2+2?,,,,4,5,\n"
    ",,,,,,Plain.\n"
    "2+2?,4,,,,,\n"  # judged by nobody, in a table where others are
)


def test_a_table_of_many_kinds_with_broken_rows_is_converted_as_it_is_read(write, tmp_path):
    """1 row in 100 is broken: too many cells, or a score that is none."""
    content = MIXED + MIXED_ROWS * 40 + "a,b,c,d,e,f,g,h\n2+2?,4,good,,,,\n"
    path = write("a.csv", content.encode("utf-8-sig").replace(b"\n", b"\r\n"))
    found = convert(Stream(path), tmp_path / "out.jsonl")
    assert found.written == {"score": 40, "label": 40, "pair": 40, "text": 40}
    assert sorted(found.left_out.values()) == [1, 1, 40]
    read_as = [item.kind for item in read_all(path) if isinstance(item, Record)]
    assert [item.kind for item in read_all(tmp_path / "out.jsonl")] == read_as


def test_a_workbook_is_converted(tmp_path):
    import openpyxl

    book = openpyxl.Workbook()
    for row in (("question", "response", "ann", "bob"), ("2+2?", "4", 5, 4), ("3?", "x", 1, None)):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    columns = {"prompt": "question", "completion": "response"}
    stream = Stream(tmp_path / "a.xlsx", columns=columns, score_range=(1, 5))
    convert(stream, tmp_path / "out.jsonl", None, ("ann", "bob"))
    assert [row["score"] for row in rows_in(tmp_path / "out.jsonl")] == [0.875, 0.0]


def rating(value, name="r"):
    return {"from_name": name, "type": "rating", "value": {"rating": value}}


STUDIO = {
    "data": {"prompt": "2+2?", "response": "4"},
    "annotations": [
        {
            "completed_by": "ann",
            "result": [
                {"from_name": "why", "type": "textarea", "value": {"text": ["It is."]}},
                rating(1),
            ],
        },
        {"completed_by": "bob", "result": [rating(0)]},
    ],
}


def test_an_answer_that_says_nothing_usable_takes_no_other_with_it(write, tmp_path):
    argilla = {**SHAPES["Argilla 2 records"].row}
    answers = [{"value": 1, "user_id": "u1"}, {"value": 0, "user_id": "u2"}]
    argilla["responses"] = {"why": [{"value": "It is.", "user_id": "u1"}], "rating": answers}
    found, rows = converted(write, tmp_path, STUDIO, argilla)
    assert [(row["score"], row["raters"]) for row in rows] == [(0.5, 4)]
    assert sorted(found.left_out.values()) == [1, 1]


def test_answers_to_several_questions_are_not_made_one(write, tmp_path):
    several = json.loads(json.dumps(STUDIO))
    several["annotations"][1]["result"].append(rating(0.5, "safe"))
    with pytest.raises(
        ValueError, match=r"several questions \(r, safe\), of which one score .* --from"
    ):
        converted(write, tmp_path, several)
    form = make({"name": "label_studio", "question": "safe"})
    convert(Stream(write("a.jsonl", lines_of(several))), tmp_path / "out.jsonl", form)
    assert [row["score"] for row in rows_in(tmp_path / "out.jsonl")] == [0.5]


def test_raters_without_a_name_are_several(write, tmp_path):
    row = {"prompt": "2+2?", "completion": "4", "ratings": [True, True, False]}
    _, rows = converted(write, tmp_path, {**row, "annotators": [None, None, None]})
    assert [(one["label"], one["raters"]) for one in rows] == [(True, 3)]


def test_a_row_of_which_nothing_is_judged_is_counted(write, tmp_path):
    row = {"prompt": "2+2?", "completion": "4", "ratings": [None], "annotators": ["a"]}
    found, rows = converted(write, tmp_path, OURS["pair"], row)
    assert (len(rows), sum(found.left_out.values())) == (1, 1)


def test_texts_of_an_arena_may_begin_with_a_bracket(write, tmp_path):
    row = {
        "prompt": "[INST] List two.",
        "winner": "a",
        "response_a": '["x", "y"]',
        "response_b": "[no",
    }
    _, rows = converted(write, tmp_path, row)
    assert (rows[0]["prompt"], rows[0]["chosen"], rows[0]["rejected"]) == (
        *("[INST] List two.", '["x", "y"]', "[no"),
    )
    longer = {**SHAPES["Arena of a competition"].row, "response_a": '["4", "more"]'}
    with pytest.raises(ValueError, match="must have a turn for each of the prompt"):
        converted(write, tmp_path, longer)


def test_conversations_of_ms_swift_may_part_before_their_last_turn(write, tmp_path):
    row = {"messages": [USER, FOUR, USER, FOUR], "rejected_messages": [USER, FIVE, USER, FIVE]}
    _, rows = converted(write, tmp_path, row)
    assert rows[0]["prompt"] == [USER]
    assert rows[0]["rejected"] == [FIVE, USER, FIVE]


def test_lists_of_argilla_in_a_table_of_text(write, tmp_path):
    content = "prompt,response,r.responses,r.responses.users\n2+2?,4,\"[1, 0]\",\"['a', 'b']\"\n"
    convert(Stream(write("a.csv", content.encode())), tmp_path / "out.jsonl")
    assert [(row["score"], row["raters"]) for row in rows_in(tmp_path / "out.jsonl")] == [(0.5, 2)]


def test_what_is_read_is_not_written_over(write, tmp_path):
    path = write("rows.left_out.jsonl", lines_of(OURS["pair"]))
    with pytest.raises(ValueError, match="written over"):
        convert(Stream(path), tmp_path / "rows.jsonl")
    assert len(read_all(path)) == 1
    convert(Stream(path), tmp_path / "out.jsonl")
    with pytest.raises(ValueError, match="in the folder that is read"):
        convert(Stream(tmp_path), tmp_path / "out.jsonl")


def test_a_block_is_advised_for_scores_of_which_one_is_no_number(write):
    rows = [{"prompt": "2+2?", "reply": "4", "rating": one} for one in (float("nan"), 4, 2)]
    path = write("a.jsonl", lines_of(*rows))
    assert "score_range: [2, 4]" in "\n".join(advice(Stream(path)))


def test_what_stands_beside_a_row_of_any_format_is_carried(write, tmp_path):
    """A weight, tools, arguments of the template and an id; other columns are named."""
    beside = {"weight": 0.5, "id": "mine", "chat_template_kwargs": {"enable_thinking": False}}
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    row = {
        "messages": turns,
        "rejected_response": "no",
        "system": "Be kind.",
        "model": "x",
        **beside,
    }
    found, rows = converted(write, tmp_path, row)
    lead = {"role": "system", "content": "Be kind."}
    (made,) = rows
    assert made == {
        **beside,
        "prompt": [lead, turns[0]],
        "chosen": turns[1:],
        "rejected": made["rejected"],
    }
    assert made["rejected"] == [{"role": "assistant", "content": "no"}]
    assert found.unused == {"model": ""}


def test_functions_that_gemini_declares_are_tools(write, tmp_path):
    one = {"name": "look", "description": "Look.", "parameters": {"type": "object"}}
    said = [{"role": who, "parts": [{"text": who}]} for who in ("user", "model")]
    row = {"contents": said, "tools": [{"functionDeclarations": [one]}]}
    _, (made,) = converted(write, tmp_path, row)
    assert made["chat_template_kwargs"]["tools"] == [{"type": "function", "function": one}]
    search = {"contents": said, "tools": [{"googleSearch": {}}]}
    found, _ = converted(write, tmp_path, row, search)
    assert list(found.left_out) == [
        "`tools` hold googleSearch: functionDeclarations alone can be told"
    ]


def test_several_turns_of_helpsteer_are_not_offered_as_one_text(write):
    rated = {"response": "yes", "helpfulness": 4, "correctness": 4, "coherence": 4}
    one = {"prompt": "What?", **rated}
    two = {"prompt": "What?\n<extra_id_1>Assistant\nThat.\n<extra_id_1>User\nWhy?", **rated}
    assert "onestage convert" not in " ".join(advice(Stream(write("a.jsonl", lines_of(one)))))
    assert "onestage convert" in advice(Stream(write("b.jsonl", lines_of(one, two))))[-1]
