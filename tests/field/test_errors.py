"""What a user can get wrong ends in a line that says what, where and what to type: no traceback."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import constants
from support.tiny import write_rows
from typer.testing import CliRunner

import onestage
from onestage.cli._errors import told
from onestage.cli._terminal import app
from onestage.config import fault, first_line
from onestage.data import reach

ROWS = [{"prompt": "a", "completion": " b"}] * 4


def call(*words: object) -> tuple[int, str]:
    """Exit code, and all that was printed."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    return done.exit_code, done.output


def refused(*words: object) -> str:
    """What a command ends with: a line, or one for each of several mistakes."""
    code, output = call(*words)
    assert code == 1, output
    assert "Traceback" not in output
    assert "fault" not in output
    lines = output.rstrip().split("\n")
    assert lines[-1].startswith("error: "), output
    return "\n".join(line for line in lines if line.startswith("error: "))


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
TEXTS = {
    "a bomb of aliases": (BOMB, "its aliases stand for 1"),
    "a bomb of merges": (
        "a: &a {k: 1}\n"
        + "".join(
            f"{n}: &{n} {{<<: [{','.join(['*' + o] * 10)}]}}\n"
            for o, n in zip("abcdefgh", "bcdefghi", strict=True)
        ),
        "its aliases stand for",
    ),
    "an alias to itself": ("a: &a [*a]\n", "line 1: what stands there holds itself"),
    "deep brackets": ("data: " + "[" * 5000, "more than 64 levels"),
    "a chain of aliases": (
        "a0: &a0 [x]\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n}]\n" for n in range(500)),
        "more than 64 levels",
    ),
    "an open list": ("train: [1", "is not YAML: line 1, column"),
    "a date that is none": ("description: 2024-99-99\n", "is not YAML: month must be in 1..12"),
    "a number without digits": ("description: 0b_\n", "is not YAML: "),
    "an unknown tag": ("data: !!python/object:os.system x\n", "could not determine a constructor"),
    "a list as a key": ("{[1, 2]: 3}\n", "unhashable key"),
    "a control character": ("description: \x01\n", "is not YAML: "),
    "nothing": ("", "a recipe is a mapping"),
    "a word": ("recipe\n", "a recipe is a mapping"),
    "two documents": ("a: 1\n---\nb: 2\n", "is not YAML: line 2"),
    "a number as a section": ("3: 4\n", "3: Keys should be strings"),
    "nothing as a section": ("null: 4\n", "None: Keys should be strings"),
}
"""Recipes as text, and a part of what is said."""


@pytest.mark.parametrize("command", ["train", "check"])
@pytest.mark.parametrize("name", TEXTS)
def test_texts_that_are_no_recipe(command: str, name: str, tmp_path: Path) -> None:
    text, part = TEXTS[name]
    file = tmp_path / "r.yaml"
    file.write_text(text)
    assert part in refused(command, file)
    assert str(file) in refused(command, file) or "Keys" in part


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("x")
    assert "is trained on with --model" in refused("train", tmp_path)  # a folder may hold rows
    assert "no recipe at" in refused("train", tmp_path / "r.yaml" / "r.yaml")
    (tmp_path / "endless.yaml").symlink_to("/dev/zero")
    assert "no recipe is larger than 16 MB" in refused("train", tmp_path / "endless.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00a")
    assert "is not YAML" in refused("train", tmp_path / "bytes.yaml")
    assert "File name too long" in refused("train", "x" * 300 + ".yaml")


SETS = ["seeds=[1", "train.seed={", "train.seed=2024-99-99", "train.seed=&a [*a]", "=1", "train"]


@pytest.mark.parametrize("given", SETS)
def test_overrides_that_cannot_be_read(given: str, tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(yaml.safe_dump({"model": "m", "data": ROWS}))
    assert f"--set {given!r}" in refused("train", file, "--set", given)
    assert f"--set {given!r}" in refused("study", file, "--set", given)


STUDIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "stages a mapping": lambda s: s["methods"]["A"].update(stages={"one": {}}),
    "stages of words": lambda s: s["methods"]["A"].update(stages=["one"]),
    "common stages a number": lambda s: s["recipe"].update(stages=3),
    "train a word": lambda s: s["methods"]["A"].update(train="fast"),
    "train of a stage a list": lambda s: s["methods"]["A"].update(
        stages=[{"name": "one", "train": [1]}]
    ),
    "data of words": lambda s: s["recipe"].update(data=["a.jsonl"]),
    "data a number": lambda s: s["recipe"].update(data=7),
    "no method": lambda s: s.update(methods={}),
    "a method of a word": lambda s: s["methods"].update(A="sft"),
    "seeds a word": lambda s: s.update(seeds="all"),
    "world a list": lambda s: s.update(world=[1]),
    "world without a name": lambda s: s.update(world={"size": "small"}),
    "axes a list": lambda s: s.update(axes=[1]),
    "an unknown stream": lambda s: s["methods"]["A"].update(streams=["c"]),
    "data by name, an unknown stream": lambda s: (
        s["recipe"].update(data={"a": "a.jsonl"}),
        s["methods"]["A"].update(streams=["c"]),
    ),
}


@pytest.mark.parametrize("name", STUDIES)
def test_studies_that_are_none(name: str, tmp_path: Path) -> None:
    study: dict[str, Any] = {
        "name": "s",
        "world": {"name": "lab"},
        "seeds": [0],
        "budget": {"updates": 2},
        "recipe": {"model": "m", "data": [{"name": "a", "path": "a.jsonl"}]},
        "methods": {"A": {"objective": "sft"}},
    }
    STUDIES[name](study)
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(study))
    refused("study", file, "--out", tmp_path / "out")


PLACES: dict[str, tuple[dict[str, Any], str]] = {
    "no path": ({"data": {"a": ""}}, "an empty text is no path"),
    "a blank path": ({"data": {"a": "  "}}, "an empty text is no path"),
    "a path longer than paths": ({"data": {"a": "x" * 300}}, "File name too long"),
    "a range that is a number": (
        {"data": {"a": {"path": "a", "score_range": 5}}},
        "two increasing",
    ),
    "no range": ({"data": {"a": {"path": "a", "score_range": None}}}, "two increasing"),
    "a number as a schedule": ({"schedule": 3}, "schedule: expected a name"),
    "a list as a schedule": ({"schedule": [1]}, "schedule: expected a name"),
    "no model": ({"model": ""}, "model.name: an empty text is no model"),
    "no tokenizer": ({"model": {"name": "m", "tokenizer": ""}}, "model.tokenizer: an empty text"),
    "a rank beyond all models": ({"model": {"name": "m", "lora": {"r": 10**19}}}, "model.lora.r: "),
    "a mistyped folder": ({"model": "runs/frist"}, "did you mean runs/first?"),
    "a mistyped folder of rows": ({"data": {"a": "runs/frist"}}, "did you mean runs/first?"),
    "a hub id out of reach": (
        {"model": "somebody/model"},
        "the hub cannot be asked (HF_HUB_OFFLINE is set)",
    ),
    "a data set out of reach": (
        {"data": {"a": "some/rows"}},
        "the hub cannot be asked (HF_HUB_OFFLINE",
    ),
}


@pytest.mark.parametrize("name", PLACES)
def test_places_where_nothing_is(
    name: str, tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said once, of the disk and of the hub, before anything is asked of the hub twice."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    reach._out_of_reach.cache_clear()
    (tmp_path / "runs" / "first").mkdir(parents=True)
    given, part = PLACES[name]
    rows = write_rows(tmp_path / "rows.jsonl", ROWS)
    content = {"model": str(model_folder), "data": {"rows": str(rows)}, "objective": "sft", **given}
    file = tmp_path / "r.yaml"
    file.write_text(yaml.safe_dump(content))
    assert part in refused("train", file)


def test_the_hub_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def unreachable(place: tuple[str, int], seconds: float) -> None:
        asked.append(place)
        raise OSError(101, "Network is unreachable")

    reach._out_of_reach.cache_clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(reach, "getproxies", dict)
    monkeypatch.setattr(reach.socket, "create_connection", unreachable)
    file = tmp_path / "r.yaml"
    file.write_text(yaml.safe_dump({"model": "some/model", "data": {"a": "some/rows"}}))
    said = refused("train", file)
    reach._out_of_reach.cache_clear()
    assert asked == [("huggingface.co", 443)]
    assert "the hub cannot be asked (huggingface.co: Network is unreachable)" in said


def test_debug_shows_the_traceback_wherever_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in (["--debug", "train", "none.yaml"], ["train", "none.yaml", "--debug"]):
        monkeypatch.setenv("ONESTAGE_DEBUG", "")
        done = CliRunner().invoke(app, words)
        assert "no recipe at none.yaml" in str(done.exception)
        assert "error:" not in done.output
        assert os.environ["ONESTAGE_DEBUG"] == "1"  # for the processes of a study


def test_what_nobody_foresaw_is_told_as_our_fault(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Type, text and place in one line; what a plug-in does is told as the plug-in's."""
    import onestage.training.recipe as module

    for broken in (None, {}.__getitem__, "recipe".index):
        monkeypatch.setattr(module, "read_yaml", broken)
        code, line = call("train", tmp_path / "r.yaml")
        assert (code, line.count("\n")) == (1, 1)
        assert "error: this is a fault of onestage: run again with --debug and report it" in line
        assert "TypeError: " in line
        assert "(at onestage/training/recipe.py:" in line
    monkeypatch.setattr(module, "read_yaml", lambda *_: 1 / 0)
    code, line = call("train", tmp_path / "r.yaml")
    assert (code, line.count("\n")) == (1, 1)
    assert f"error: a fault in {__file__}, line " in line
    assert "ZeroDivisionError: division by zero" in line


def test_a_librarys_error_says_which_and_where() -> None:
    with pytest.raises(ValueError) as found:
        json.loads("{")
    assert "JSONDecodeError" in told(found.value)


def test_an_error_that_says_nothing_is_not_told_as_none() -> None:
    """An empty line would be taken for no failure at all."""
    assert first_line(ValueError("\n  of a box\nand more")) == "of a box"
    assert first_line(KeyError()) == "KeyError"
    assert first_line(ValueError(" \n")) == "ValueError"


def test_a_file_beside_the_package_is_not_ours() -> None:
    """`onestage_rewards/mine.py` begins as our own folder does."""
    place = f"{Path(onestage.__file__).parent}_rewards/mine.py"
    with pytest.raises(ZeroDivisionError) as raised:
        exec(compile("1 / 0", place, "exec"))
    assert fault(raised.value) == f"ZeroDivisionError: division by zero ({place}, line 1)"
