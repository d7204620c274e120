"""Rooms, who may import whom, and sizes (DESIGN section 7, read off the source text)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "onestage"
FILES = sorted(ROOT.rglob("*.py"))

LEVELS = [
    {"nearest", "problems", "annealing", "randomness", "intervals"},
    {"records", "forest", "named", "tradeoff"},
    {"policy", "streams", "objectives", "schedules", "averaging", "logbook"},
    {"terms", "checkpoints", "options", "guard", "standing"},
    {"recipe", "rollout"},
    {"steps", "stage_plan", "task"},
    {"training"},
    {"evaluation", "selfcheck", "signals", "watcher"},
    {"wiring"},
    {"batches"},
    {"planning"},
    {"references", "online"},
    {"assembly", "probing", "optimum"},
    {"lookout"},
    {"run", "doctor", "scoring", "merging"},
    {"lab", "pages", "report", "stages"},
    {"checking", "study"},
    {"demo"},
    {"cli"},
]
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
FORBIDDEN_NAMES = {"utils", "helpers", "common", "core", "base", "misc"}


def room_of(file: Path) -> str:
    parts = file.relative_to(ROOT).parts
    return parts[0].removesuffix(".py")


def imported_rooms(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "onestage" and len(parts) > 1:
                found.add(parts[1])
    return found


def imported_packages(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_go_down(file: Path) -> None:
    room = room_of(file)
    if room == "__init__":
        return
    assert room in LEVEL, f"{room} has no place in LEVELS"
    for other in imported_rooms(file) - {room}:
        assert LEVEL[other] < LEVEL[room], f"{room} imports {other}"


@pytest.mark.parametrize(
    ("room", "packages"),
    [
        ("records", {"torch", "numpy", "transformers", "peft"}),
        ("forest", {"torch", "transformers", "peft"}),
        ("schedules", {"torch", "numpy", "transformers", "peft"}),
        ("objectives", {"transformers", "peft", "accelerate", "numpy"}),
        ("streams", {"torch", "transformers", "peft"}),
        ("terms", {"transformers", "peft", "accelerate"}),
        ("training", {"transformers", "peft"}),
        ("logbook", {"torch", "transformers"}),
        ("pages", {"torch", "transformers"}),
        ("report", {"torch", "numpy", "transformers", "peft"}),
        ("problems", {"torch", "numpy", "transformers", "peft"}),
    ],
)
def test_rooms_know_only_their_libraries(room: str, packages: set[str]) -> None:
    for file in FILES:
        if room_of(file) == room:
            assert not imported_packages(file) & packages, file


def test_the_loop_names_no_objective_and_no_schedule() -> None:
    text = (ROOT / "training.py").read_text()
    for name in ("dpo", "sft", "uft", "kto", "ipo", "proportional", "alright", "mix("):
        assert name not in text.lower()


def test_no_attics() -> None:
    assert not {file.stem for file in FILES} & FORBIDDEN_NAMES


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_files_are_short(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 350


def test_the_loop_fits_one_screen() -> None:
    tree = ast.parse((ROOT / "training.py").read_text())
    sizes = {
        node.name: (node.end_lineno or 0) - node.lineno + 1
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    }
    assert sizes["train"] <= 50
    assert sizes["take_step"] <= 50
