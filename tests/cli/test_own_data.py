"""From somebody's own file to an adapter, and every command says what to type next."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.rows import lines_of
from support.shapes import SHAPES
from support.tiny import write_rows
from typer.testing import CliRunner

from onestage.cli import app

RATINGS = """prompt,completion,stars,annotator
What is 2+2?,4,5,ann
What is 2+2?,4,4,bob
What is 2+2?,5,1,ann
What is 2+2?,5,2,bob
Capital of France?,Paris,5,ann
Capital of France?,Rome,1,bob
"""
PAIR = {"prompt": "2+2?", "chosen": "4", "rejected": "5"}


def call(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, [*words], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_a_csv_of_ratings_to_an_adapter_in_three_commands(
    here: Path, model_folder: Path
) -> None:
    """The path of docs/formats.md."""
    (here / "ratings.csv").write_text(RATINGS)
    told = call(
        *("convert", "ratings.csv", "rows.jsonl", "--column", "score=stars", "--score-range", "1,5")
    )
    assert "6 ratings of 4 answers by 2 raters; Krippendorff's alpha" in told
    assert told.endswith("next: onestage check rows.jsonl")
    told = call("check", "rows.jsonl")
    assert "4 score records" in told
    assert told.endswith("next: onestage train rows.jsonl --model MODEL")
    told = call(
        *("train", "rows.jsonl", "--model", str(model_folder), "--set", "train.max_steps=2"),
        *("--set", "train.batch_size=2"),
    )
    assert "objective: uft" in told
    assert (here / "runs" / "rows" / "model" / "adapter_model.safetensors").exists()
    assert "next: onestage sample --model runs/rows/model" in told


def test_train_says_what_a_file_of_rows_lacks(here: Path) -> None:
    write_rows(here / "pairs.jsonl", [PAIR])
    told = call("train", "pairs.jsonl", code=1)
    assert "with --model FOLDER_OR_HUB_ID; onestage init pairs.jsonl" in told
    told = call("train", "recipe.yaml", "--model", "x", code=1)
    assert "--model: is for a file of rows; of a recipe it is --set model.name=..." in told
    write_rows(here / "shp.jsonl", [SHAPES["SHP"].row])
    told = call("train", "shp.jsonl", "--model", "x", code=1)
    assert "a row of shp: onestage convert FILE rows.jsonl" in told
    assert "onestage check shp.jsonl says what to do" in told


def test_what_is_advised_is_not_gainsaid_by_a_guess_at_a_column(here: Path) -> None:
    write_rows(here / "shp.jsonl", [SHAPES["SHP"].row])
    told = call("check", "shp.jsonl", code=1)
    assert "they are read after: onestage convert shp.jsonl shp.rows.jsonl" in told
    assert "did you mean" not in told


def test_check_prints_one_block_that_trains(here: Path, model_folder: Path) -> None:
    (here / "a.csv").write_text("question;reply;rating\n2+2?;4;5\n3?;no;1\n", encoding="cp1252")
    told = CliRunner().invoke(app, ["check", "a.csv", "--delimiter", ";"]).output
    block = told[told.index("data:") :].splitlines()
    assert [line.split(":")[0].strip(" -") for line in block[:6]] == [
        *("data", "name", "path", "delimiter", "columns", "score_range")
    ]


def test_what_check_was_told_it_tells_on(here: Path) -> None:
    (here / "a.csv").write_text("prompt;completion;stars\n2+2?;4;5\n")
    given = "a.csv --column score=stars --score-range 1,5 --delimiter ';'"
    told = call("check", *shlex.split(given))
    assert told.endswith("next: onestage train a.csv --model MODEL --column score=stars "
                         "--score-range 1,5 --delimiter ';'")  # fmt: skip
    call("init", *shlex.split(given))
    assert "4 score" not in call("check", "recipe.yaml", code=1)  # no such model here
    recipe = (here / "recipe.yaml").read_text()
    assert 'columns: {"score": "stars"}' in recipe
    assert 'delimiter: ";"' in recipe


@pytest.mark.parametrize("said", ["--score-range 1,5", "--score-range 1 5", "--score-range=1,5"])
def test_a_range_is_written_as_people_write_it(said: str, here: Path) -> None:
    write_rows(here / "a.jsonl", [{"prompt": "a", "completion": "b", "score": 4}])
    assert "1 score records" in call("check", "a.jsonl", *said.split())


def test_a_flag_that_changes_nothing_is_refused(here: Path) -> None:
    write_rows(here / "a.jsonl", [PAIR])
    for command in ("check", "encode"):
        told = call(command, "recipe.yaml", "--column", "prompt=a", code=1)
        assert "--column: changes nothing for recipe.yaml, a recipe" in told
        more = ("--tokenizer", "x") if command == "encode" else ()
        told = call(command, "a.jsonl", "--set", "train.max_steps=2", *more, code=1)
        assert "--set: changes nothing for a.jsonl, a data file" in told
    told = call("train", "recipe.yaml", "--column", "prompt=a", code=1)
    assert "it is --set data.STREAM.columns=..." in told


def test_a_first_recipe_of_a_long_name_is_yaml(here: Path) -> None:
    name = "a name of many words " * 5 + ".jsonl"
    write_rows(here / name, [PAIR])
    call("init", name)
    assert yaml.safe_load((here / "recipe.yaml").read_text())["data"][0]["path"] == name


def test_refusals_stand_once_each_with_their_number(here: Path) -> None:
    rows = [{"prompt": "a", "completion": "b", "kind": "thumbs"}] * 30
    write_rows(here / "a.jsonl", [*rows, {"prompt": "a", "completion": "b", "extra": 1}])
    told = call("check", "a.jsonl", code=1)
    assert told.count("found str 'thumbs'") == 1
    assert "a.jsonl:1 (30 rows, this the first): `kind` must be one of" in told
    assert told.count("'extra'") == 1


def test_what_check_was_told_of_ratings_it_tells_on_to_convert(here: Path) -> None:
    (here / "a.csv").write_text("prompt,completion,my stars,annotator\na,b,5,ann\na,b,1,bob\n")
    told = call("check", "a.csv", "--column", "score=my stars", "--score-range", "1,5")
    given = "a.csv a.rows.jsonl --column 'score=my stars' --score-range 1,5"
    assert f"next: onestage convert {given} (one row" in told
    call("convert", *shlex.split(given))


def test_check_shows_the_raters(here: Path) -> None:
    rows = [
        {"prompt": "a", "completion": "b", "score": score, "annotator": who}
        for who, score in (("ann", 1), ("bob", 0))
    ]
    write_rows(here / "a.jsonl", rows)
    told = call("check", "a.jsonl")
    assert "2 ratings of 1 answers by 2 raters" in told
    assert "next: onestage convert a.jsonl a.rows.jsonl" in told


def test_convert_counts_what_it_leaves_out(here: Path) -> None:
    arena = SHAPES["Chatbot Arena"].row
    rows = [arena] * 200 + [{**arena, "winner": "tie"}] * 3 + [{"odd": 1}]
    (here / "a.jsonl").write_bytes(lines_of(*rows) + b"{broken\n")
    told = call("convert", "a.jsonl", "out.jsonl")
    assert "left out 5, in out.left_out.jsonl: 3: a tie: prefers neither answer" in told
    assert "out.jsonl: 200 pair" in told
    told = call("convert", "a.jsonl", "other.jsonl", "--from", "areena", code=1)
    assert "did you mean 'arena'?" in told


def own(here: Path, *rows: dict[str, Any]) -> list[dict[str, Any]]:
    write_rows(here / "own.jsonl", list(rows))
    told = call("problems", "countdown", "own.jsonl", "--out", "out.jsonl", "--template", "short")
    assert told.endswith("next: onestage check out.jsonl --kind check")
    return [json.loads(line) for line in (here / "out.jsonl").read_text().splitlines()]


MAKER = """
from dataclasses import dataclass
from onestage.rollout.rewards import Reward

@dataclass(frozen=True)
class Mine(Reward):
    def __call__(self, answers):
        return [0.0 for _ in answers]
    @classmethod
    def rows(cls, most: int | None = None, steps: list[int] = (1, 2), word: str | None = None):
        \"\"\"Problems.\"\"\"
        if most != 0:
            yield {"prompt": repr((most, steps, word)), "answer": "1"}
"""


def test_options_of_another_package_s_checker_have_its_types(here: Path) -> None:
    (here / "mine.py").write_text(MAKER)
    make = ("problems", "./mine.py:Mine", "--force", "--out", "out.jsonl")
    for words, told in (
        ((), "(None, [1, 2], None)"),
        (("--most", "3", "--steps", "4,5", "--word", "7"), "(3, [4, 5], '7')"),
    ):
        call(*make, *words)
        assert json.loads((here / "out.jsonl").read_text())["prompt"] == told
    assert "--steps '4,x': expected numbers" in call(*make, "--steps", "4,x", code=1)
    (here / "out.jsonl").unlink()
    assert "there is not one row to make a problem of" in call(*make, "--most", "0", code=1)
    assert not (here / "out.jsonl").exists()


def test_countdown_makes_problems_of_one_s_own_numbers(here: Path) -> None:
    from onestage.rollout.rewards import Answer
    from onestage.rollout.rewards.countdown import Countdown

    solved, hopeless = own(
        here, {"nums": [44, 19, 35], "target": 98, "level": 1}, {"numbers": [1, 1], "target": 9}
    )
    assert solved["prompt"] == "44 19 35 = 98\n"
    assert solved["level"] == 1
    answer = Answer(solved["prompt"], solved["completion"], solved)
    assert Countdown().judge(answer) == 1.0
    assert "completion" not in hopeless
    assert hopeless["nums"] == [1, 1]
    assert "2 check records" in call("check", "out.jsonl", "--kind", "check")


def test_countdown_refuses_what_says_nothing(here: Path) -> None:
    write_rows(here / "own.jsonl", [{"nums": [1, 2], "target": 3}, {"nums": "1 2", "target": 3}])
    told = call("problems", "countdown", "own.jsonl", "--out", "out.jsonl", code=1)
    assert "row 2: countdown needs the columns `nums`" in told
    assert not (here / "out.jsonl").exists()
    told = call("problems", "countdown", "own.jsonl", "--out", "out.jsonl", "--count", "5", code=1)
    assert "--count: is for problems that are made, not for rows" in told
