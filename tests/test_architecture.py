"""Rooms, who may import whom, and sizes, read off the source text."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "onestage"
FILES = sorted(ROOT.rglob("*.py"))

RULE = (
    "cli, testing > studies > training > rollout > models, objectives, schedules > data"
    " > config, runfolder, stats, randomness"
)
LEVEL = {
    room.strip(): -floor
    for floor, rooms in enumerate(RULE.split(">"))
    for room in rooms.strip().split(",")
}
STANDS_ON = {"report": {"runfolder", "stats"}}
"""Rooms beside the rule: they read what others leave on disk."""
ROOT_FILES = {"__init__", "__main__", "config", "runfolder", "stats", "randomness"}
FORBIDDEN_NAMES = {"utils", "helpers", "common", "core", "base", "misc"}


def room_of(file: Path) -> str:
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(file: Path) -> set[str]:
    """Modules that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "onestage":
            found |= {f"onestage.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def imported_rooms(file: Path) -> set[str]:
    return {name.split(".")[1] for name in imported(file) if name.startswith("onestage.")}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_go_down(file: Path) -> None:
    """A room imports itself and rooms further down the rule; siblings do not import each other."""
    room = room_of(file)
    if room in ("__init__", "__main__"):
        return
    for other in imported_rooms(file) - {room}:
        if room in STANDS_ON:
            assert other in STANDS_ON[room], f"{room} imports {other}"
        elif other in STANDS_ON:
            assert LEVEL[room] >= LEVEL["studies"], f"{room} imports {other}"
        else:
            assert LEVEL[other] < LEVEL[room], f"{room} imports {other}"


def test_only_the_leaves_stand_at_the_root() -> None:
    assert {file.stem for file in ROOT.glob("*.py")} <= ROOT_FILES


@pytest.mark.parametrize(
    ("room", "packages"),
    [
        ("data", {"torch", "peft"}),
        ("schedules", {"torch", "numpy", "transformers", "peft"}),
        ("objectives", {"transformers", "peft", "accelerate", "numpy"}),
        ("training", {"peft"}),
        ("report", {"torch", "numpy", "transformers", "peft"}),
        ("runfolder", {"torch", "transformers"}),
        ("config", {"torch", "transformers"}),
    ],
)
def test_rooms_know_only_their_libraries(room: str, packages: set[str]) -> None:
    for file in FILES:
        if room_of(file) == room:
            assert not {name.split(".")[0] for name in imported(file)} & packages, file


def test_whole_recipes_are_seen_in_two_places() -> None:
    """Rule A: everything else is handed its own section."""
    seen = {
        str(file.relative_to(ROOT))
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.arg)
        and node.annotation is not None
        and "Recipe" in {n.id for n in ast.walk(node.annotation) if isinstance(n, ast.Name)}
    }
    assert seen <= {"training/build.py", "training/plan.py"}


def test_the_loop_names_no_objective_and_no_schedule() -> None:
    text = (ROOT / "training" / "loop.py").read_text()
    for name in ("dpo", "sft", "uft", "kto", "ipo", "proportional", "alright", "mix("):
        assert name not in text.lower()


def test_no_attics() -> None:
    assert not {file.stem for file in FILES} & FORBIDDEN_NAMES


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_files_are_short(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 350


def test_the_loop_fits_one_screen() -> None:
    tree = ast.parse((ROOT / "training" / "loop.py").read_text())
    sizes = {
        node.name: (node.end_lineno or 0) - node.lineno + 1
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    }
    assert sizes["train"] <= 50
    assert sizes["take_step"] <= 50


ON_THE_HOST = {"training/retained.py", "models/preserved.py"}
"""What these make wide has come to the host before."""


def test_no_device_is_asked_for_what_it_may_not_have() -> None:
    """Apple's have no float64: wide are numbers of the host, or what `objectives.wide` says."""
    found = {
        str(file.relative_to(ROOT))
        for file in FILES
        if re.search(r"(?<!\.cpu\(\))\.double\(\)", file.read_text())
    }
    assert found <= ON_THE_HOST
