"""What commands load before they do anything: libraries that take seconds only where they are needed."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from support.tiny import write_rows

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "accelerate", "peft", "datasets", "pandas", "pyarrow", "scipy")
"""Half a second to two seconds each."""

LOOK = """
import json, sys
from typer.testing import CliRunner
from onestage.cli import app

def loaded():
    return [name for name in {heavy} if name in sys.modules]

found = []
for words in json.load(sys.stdin):
    result = CliRunner().invoke(app, words)
    found.append((result.exit_code, loaded(), result.output[-300:]))
import onestage
onestage.Model, onestage.Train, onestage.Stream, onestage.Rollout
print(json.dumps([found, loaded()]))
"""


def test_commands_that_compute_nothing_load_no_heavy_library(tmp_path: Path) -> None:
    """One process for all of them: what an earlier one loaded would show in the later ones as well."""
    data = write_rows(tmp_path / "rows.jsonl", [{"prompt": "a", "completion": "b"}])
    commands = [
        ["--help"],
        ["train", "--help"],
        ["--version"],
        *(["list", sort] for sort in ("schedules", "hints", "rewards", "engines", "worlds")),
        *(["list", sort] for sort in ("suites", "executors", "callbacks", "formats")),
        ["check", str(data)],
        ["init", str(data)],
        ["convert", str(data), str(tmp_path / "out.jsonl")],
        ["front", "--help"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", LOOK.format(heavy=HEAVY)],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found, sections = json.loads(done.stdout.splitlines()[-1])
    for words, (code, loaded, said) in zip(commands, found, strict=True):
        assert (code, loaded) == (0, []), (words, said)
    assert sections == []


def test_a_run_loads_no_library_that_only_some_runs_need() -> None:
    """Half a second each: adapters need PEFT, other optimisers transformers' trainer (and with it
    datasets and pandas), the hub datasets, and so on. Read off what is imported at the top of files."""
    wanted = set(_top_imports("onestage.training.pipeline")) | set(
        _top_imports("onestage.training.run")
    )
    theirs = {name.split(".")[0] for name in wanted}
    assert {"torch", "transformers", "accelerate"} <= theirs  # the test sees what there is
    rare = {"peft", "datasets", "pandas", "pyarrow", "scipy", "ray", "torchjd", "lm_eval"}
    assert not theirs & (rare | {"vllm", "trl", "mergekit", "math_verify", "bitsandbytes"})
    assert not wanted & {"transformers.Trainer", "transformers.trainer"}


def _top_imports(module: str) -> frozenset[str]:
    """What is imported as a module of ours is imported, by itself and by all of ours that it imports."""
    found: set[str] = set()
    seen, left = set(), [module]
    while left:
        name = left.pop()
        if name in seen or not (file := _file(name)):
            continue
        seen.add(name)
        for imported in _executed(ast.parse(file.read_text()).body):
            found.add(imported)
            left.append(imported)
    return frozenset(found)


def _file(module: str) -> Path | None:
    place = ROOT.joinpath(*module.split("."))
    files = (place.with_suffix(".py"), place / "__init__.py")
    return next((file for file in files if file.is_file()), None)


def _executed(body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Try):
            yield from _executed(node.body)
