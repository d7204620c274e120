"""What the pages name is there: files, commands with their flags, modules and classes of Python."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from support.markdown import PAGES, blocks
from support.tiny import ROOT

HISTORY = ROOT / "CHANGELOG.md"
NOW = [page for page in PAGES if page != HISTORY]
FOLDERS = ("onestage", "experiments", "tests", "docs", "bench", "recipes", "studies", ".ci")
ROOMS = ("data", "models", "objectives", "schedules", "rollout", "training", "report", "cli")
"""Whose files are named from the package on."""


def by_page(page: Path) -> str:
    return str(page.relative_to(ROOT))


def code(page: Path) -> str:
    """All that is set as code, a line for each piece."""
    text = page.read_text()
    fenced = re.findall(r"^ *```.*?\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^    (.*)$", prose, re.MULTILINE)
    inline = [span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", prose)]
    return "\n".join([*fenced, *indented, *inline])


@pytest.mark.parametrize("page", NOW, ids=by_page)
def test_files_are_there(page: Path) -> None:
    paths = re.findall(rf"(?<![\w./-])(?:{'|'.join(FOLDERS)})/[\w./-]*\w/?", code(page))
    paths += re.findall(rf"(?<![\w./-])(?:{'|'.join(ROOMS)})/[\w./]+\.py", code(page))
    places = (ROOT, ROOT / "onestage")
    missing = {p for p in paths if not any((place / p).exists() for place in places)}
    assert not missing


def commands() -> Any:
    from onestage.cli import app

    return typer.main.get_command(app)


@pytest.mark.parametrize("page", NOW, ids=by_page)
def test_commands_and_flags_are_there(page: Path) -> None:
    wrong = []
    called = r"(?:^|(?<!import)(?<!from)[ (])onestage ([a-z-]+[^\n#`]*)"
    for line in re.findall(called, code(page), re.MULTILINE):
        words = line.split()
        command: Any = commands()
        while words and hasattr(command, "get_command"):
            found = command.get_command(None, words[0])
            if found is None:
                break
            command, words = found, words[1:]
        else:
            known = {flag for one in command.params for flag in (*one.opts, *one.secondary_opts)}
            flags = {word.split("=")[0].strip("[]") for word in words if word.startswith("--")}
            wrong += [f"{line}: {flag}" for flag in sorted(flags - known)]
            continue
        wrong.append(line)
    assert not wrong


@pytest.mark.parametrize("page", NOW, ids=by_page)
def test_modules_and_classes_are_there(page: Path) -> None:
    missing = []
    for name in re.findall(r"(?<![\w./-])onestage(?:\.\w+)+", code(page)):
        try:
            _found(name)
        except (ImportError, AttributeError) as error:
            missing.append(f"{name}: {error}")
    assert not missing


@pytest.mark.parametrize("page", NOW, ids=by_page)
def test_imports_of_blocks_resolve(page: Path) -> None:
    for _, block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("onestage"):
                for alias in node.names:
                    _found(f"{node.module}.{alias.name}")


def _found(name: str) -> Any:
    """A module, or what stands in one, by its dotted name; a group of entry points is no name."""
    if name.rpartition(".")[2] in (
        "engines",
        "worlds",
        "executors",
        "callbacks",
        "formats",
        "schema",
    ):
        return None
    first, *rest = name.split(".")
    at: Any = importlib.import_module(first)
    for number, part in enumerate(rest, 1):
        if not hasattr(at, part):
            at = importlib.import_module(".".join([first, *rest[:number]]))
        else:
            at = getattr(at, part)
    return at
