"""Every bench starts, and those without processes of their own that cost too much run to their end.

Contestants are processes of their own where people run a bench. Here they are called one after another
in this process (`tests/whole/test_gpu_bench.py` and the bench of rollouts run real ones), with a model
of one layer: what is found is of no meaning, and that it is found is tested.
"""

from __future__ import annotations

import ast
import gzip
import importlib
import json
import shutil
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from onestage.studies.cells import reported
from onestage.studies.file import load_study
from onestage.studies.lab.world import SIZES
from onestage.studies.run_cell import prepare, run_cell
from onestage.studies.study import Study
from onestage.studies.tuning import settled
from onestage.training.build import build
from onestage.training.recipe import parse_recipe

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "bench"
DATA = ROOT.parent / "shared" / "data"
FILES = sorted(BENCH.rglob("*.py"))
needs_data = pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data")


@pytest.fixture(autouse=True)
def beside_each_other(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Benches import each other as scripts of one folder do."""
    monkeypatch.syspath_prepend(str(BENCH))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(BENCH) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The shared data, the beginning of each file."""
    folder = tmp_path_factory.mktemp("data")
    for file in DATA.glob("*.jsonl.gz"):
        with gzip.open(file, "rt") as lines, gzip.open(folder / file.name, "wt") as out:
            out.writelines(islice(lines, 200))
    return str(folder)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(BENCH)))
def test_what_a_bench_imports_of_ours_is_there(file: Path) -> None:
    """Wherever in it: files that moved broke two benches, and nobody saw it for weeks."""
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("onestage"):
            continue
        try:
            module = importlib.import_module(str(node.module))
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("onestage"):
                raise
            pytest.skip(f"{error.name} is not installed")
        for alias in node.names:
            if not hasattr(module, alias.name):
                importlib.import_module(f"{node.module}.{alias.name}")


@pytest.mark.parametrize("name", sorted(f.stem for f in BENCH.glob("*.py") if f.stem != "length"))
def test_a_bench_starts(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = importlib.import_module(name)
    if not hasattr(bench, "main"):
        return  # a part of another
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        bench.main()
    assert ended.value.code == 0
    assert "usage:" in capsys.readouterr().out


class Inline:
    """A contestant that is called here, when it is asked for the last time: a `Child` to its bench."""

    def __init__(self, name: str, spec: dict[str, Any], script: ModuleType) -> None:
        self.name, self.spec, self.script = name, spec, script
        self.process = SimpleNamespace(wait=lambda: 0)
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self.final: dict[str, Any] = {}
        self.ready = self.answers(1)[0] if spec.get("kind") == "prepare" else {"resident_mib": 1.0}

    def answers(self, steps: int) -> list[Any]:
        found: list[Any] = []

        class Pacer:
            def __init__(self) -> None:
                self.left = steps
                self.over = False

            def say(self, answer: Any) -> None:
                found.append(json.loads(json.dumps(answer)))

            def ready(self) -> None:
                pass

            def step(self) -> bool:
                self.left -= 1
                self.over = self.left <= 0
                return self.over

        with pytest.MonkeyPatch.context() as patch:
            for module in (self.script, sys.modules["against_trl"]):
                patch.setattr(module, "Pacer", Pacer)
            work = getattr(self.script, "KINDS", {}).get(self.spec.get("kind"))
            (work or self.script.run_way)(self.spec)
        return found

    def go(self, steps: int) -> None:
        self.seconds += [0.01] * steps
        self.cpu_seconds += [0.01] * steps

    def end(self) -> None:
        self.final = self.answers(len(self.seconds))[-1]

    timed = property(lambda self: self.seconds[1:])
    median = cpu_median = property(lambda self: 0.01)


def run(name: str, *words: str, monkeypatch: pytest.MonkeyPatch, **constants: Any) -> None:
    """The bench as if it was called with these words, its contestants in this process."""
    trl, bench = importlib.import_module("against_trl"), importlib.import_module(name)

    def start(child: str, spec: Any, work: Path, script: Any = None, **more: Any) -> Inline:
        return Inline(child, spec, bench if script else trl)

    monkeypatch.setattr(trl, "VOCABULARY", 600)
    monkeypatch.setattr(trl, "MAX_LENGTH", 300)
    monkeypatch.setitem(trl.MODEL, "vocab_size", 600)
    for key, value in trl.SMALL.items():
        monkeypatch.setitem(trl.MODEL, key, value)
    for module in (trl, bench):
        if hasattr(module, "start"):
            monkeypatch.setattr(module, "start", start)
    for key, value in constants.items():
        monkeypatch.setattr(bench, key, value)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *words])
    assert bench.main() in (None, 0)


@needs_data
@pytest.mark.parametrize("task", ["dpo", "sft"])
def test_against_trl(
    task: str, data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All settings of TRL are ones that it takes; the same losses where the same is computed."""
    words = ["--rounds", "1", "--steps", "1", "--no-save", "--tasks", task]
    run("against_trl", *words, "--data", data, monkeypatch=monkeypatch)
    said = capsys.readouterr().out
    assert f"{task}: 1.00 times as fast as TRL at its best" in " ".join(said.split())
    assert "MISSED" not in said.replace(f"MISSED {task}: 1 times", "")


@needs_data
def test_a_real_model_against_trl(
    data: str, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [str(model_folder), "--quick", "--rounds", "1", "--dtypes", "bfloat16"]
    run("real_model", *words, "--data", data, monkeypatch=monkeypatch)


@needs_data
def test_schedules(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--quick", "--no-save", "--data", data]
    run("schedules", *words, monkeypatch=monkeypatch, BATCH=2)


def test_head(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"POSITIONS": 8, "HIDDEN": 4, "VOCABULARIES": (32,)}
    run("head", "--quick", "--no-save", monkeypatch=monkeypatch, **few)


@needs_data
def test_deal(data: str, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--steps", "1", "--budget", "4096", "--tokenizer", str(tokenizer_folder)]
    run("deal", *words, "--data", data, monkeypatch=monkeypatch)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("million", ["--rows", "60"]),
        ("streams", ["--rows", "120", "--streams", "6", "--steps", "2"]),
        ("scaling", ["--most", "1000", "--longest", "256", "--steps", "1"]),
        ("hostile", ["--count", "20", "--only", "gsm8k"]),
    ],
)
def test_benches_with_sizes_to_choose(
    name: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(name, *words, monkeypatch=monkeypatch)


def test_ranks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Lines of a run that was measured anew take the place of the old ones, and the others stay."""
    known = {"model": "tiny Llama", "task": "maxright", "trained": "adapters"}
    other = {**known, "ranks": "4 in parts", "loss_apart": 7.0}
    (tmp_path / "ranks.json").write_text(json.dumps([{**known, "ranks": "1"}, other]))
    run("ranks", "--quick", "--out", str(tmp_path / "ranks.json"), monkeypatch=monkeypatch)
    one, kept, two = json.loads((tmp_path / "ranks.json").read_text())
    assert (one["ranks"], one["held"], one["loss_apart"]) == ("1", 1.0, 0.0)
    assert kept == other
    assert (two["ranks"], two["held"]) == ("2 in parts", 0.5)
    assert two["loss_apart_relative"] <= 1e-6


def test_quick_lines_of_ranks_are_no_figures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two steps would stand in the place of a hundred."""
    how = {"RESULTS": tmp_path / "ranks.json", "tasks": lambda *given: {}}
    run("ranks", "--quick", monkeypatch=monkeypatch, **how)
    assert not list(tmp_path.iterdir())
    run("ranks", monkeypatch=monkeypatch, **how)
    assert json.loads((tmp_path / "ranks.json").read_text()) == []


def test_larger_than_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = importlib.import_module("larger_than_memory")
    bench.write_rows(tmp_path / "rows.jsonl", 30, beside=100)
    words = ["--one", str(tmp_path / "rows.jsonl"), str(tmp_path / "cache")]
    run("larger_than_memory", *words, monkeypatch=monkeypatch, STEPS=2)
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == 30
    assert min(found[what]["own_mb"] for what in ("encode", "draw")) > 0
    before = threading.active_count()
    with pytest.raises(MemoryError), bench.watched({}, "what needs more than there is"):
        raise MemoryError
    assert threading.active_count() == before


def test_a_profile_of_the_lab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SIZES, "small", replace(SIZES["small"], documents=40))
    run("lab_profile", "--quick", "--work", str(tmp_path), monkeypatch=monkeypatch)
    said = capsys.readouterr().out
    told = json.loads(said[said.index("{\n") :])
    assert all(0 < one["in_the_model"] < 1 for one in told["runs"].values())


def test_a_long_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Up to its first step, and what it says of two."""
    bench = importlib.import_module("flat")
    build(parse_recipe(bench.recipe(tmp_path, 6)), tmp_path / "run", say=lambda line: None)
    watch = bench.Watch(bench.TIMES)
    for step in (1, 2):
        watch.step(SimpleNamespace(step=step), 0.0)
    assert watch.seen[0][0] > 100
    assert "MiB, " in capsys.readouterr().out
    assert watch.flat


def test_countdown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The base and a run on sampled answers, which begins anew where it was cut off before its first
    checkpoint, and goes on behind one; the others' recipes."""
    bench = importlib.import_module("countdown")
    run("countdown", "one", str(tmp_path), "base", "0", "--quick", monkeypatch=monkeypatch)
    folder = bench.folder_of(tmp_path, "UFT", 0)
    folder.mkdir()
    (folder / "metrics.jsonl").write_text('{"step": 1}\n')
    run("countdown", "one", str(tmp_path), "UFT", "0", "--quick", monkeypatch=monkeypatch)
    assert [point["step"] for point in bench.curves(tmp_path, "UFT", 0)] == [2]
    before = (folder / "metrics.jsonl").read_text()
    run("countdown", "one", str(tmp_path), "UFT", "0", "--quick", monkeypatch=monkeypatch)
    assert (folder / "metrics.jsonl").read_text() == before
    for method in bench.METHODS:
        parse_recipe(bench.recipe_of(tmp_path, method, 0))


def test_countdown_on_a_pretrained_model(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It learns the form of an answer first, on problems that no method trains on, and is examined;
    hints end where this run's do."""
    bench = importlib.import_module("countdown")
    for name in (*bench.REAL, *bench.QUICK, "BASE"):
        monkeypatch.setattr(bench, name, getattr(bench, name))
    words = ["--base", str(model_folder), "--quick"]
    monkeypatch.setitem(bench.REAL, "MAX_LENGTH", 2000)  # of a tokenizer of letters
    run("countdown", "one", str(tmp_path), "base", "0", *words, monkeypatch=monkeypatch)
    (exam,) = bench.curves(tmp_path, "base", 0)
    assert exam["step"] == bench.FORM_STEPS == 2
    rows = bench.files(tmp_path, 0)
    form, train = ({line for line in rows[n].open()} for n in ("form", "train"))
    assert (len(form), len(train), len(form & train)) == (4, 6, 0)
    for method in ("SFT then RFT", "RFT", "R3", "UFT"):
        recipe = bench.recipe_of(tmp_path, method, 0)
        assert parse_recipe(recipe).model.name == str(tmp_path / "base-0" / "model")
    assert recipe["data"][0]["hint"]["hint_steps"] == bench.HINT_STEPS == 15
    assert "</think>" in bench.json.loads(rows["train"].read_text().split("\n")[0])["completion"]


@needs_data
def test_the_trade_off(data: str, tokenizer_folder: Path, tmp_path: Path) -> None:
    """The recipe of every method, and the run of one."""
    bench = importlib.import_module("tradeoff")
    for name, value in {**bench.QUICK, "MAX_LENGTH": 900}.items():
        setattr(bench, name, value)
    shutil.copytree(tokenizer_folder, tmp_path / "tokenizer")
    files = bench.real_files(Path(data), tmp_path / "data")
    files["kept"].write_text("".join(files["kept"].read_text().splitlines(True)[:2]))
    base = bench.real_base(tmp_path, {**files, "text": files["kept"]}, 0, 1)
    train = {"max_steps": 1, "batch_size": 2, "learning_rate": 1e-3}
    recipes = {
        method: bench.recipe_of(base, files, tmp_path / "cache", method, 0.5, train)
        for method in bench.METHODS
    }
    for recipe in recipes.values():
        parse_recipe(recipe)
    found = bench.run_one({"recipe": recipes["Mix"], "out": tmp_path / "run", "key": "Mix"})
    assert all(found[key] > 0 for key in (*bench.EVALUATED, "retention_loss"))


@needs_data
def test_a_study_on_real_data_has_rows_to_train_on(
    data: str, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [str(tmp_path), "--base", str(model_folder), "--data", data, "--longest", "400"]
    with pytest.raises(SystemExit, match=r"\d+ demonstration rows .* none is left to train on"):
        run("real_study", *words, "--study", "real_models", monkeypatch=monkeypatch)


def real_study(monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[list[str], str, list[str]]:
    """The command that the bench ends with, its study file and what it sets."""
    said: list[list[str]] = []
    ended_well = SimpleNamespace(returncode=0)
    running = SimpleNamespace(run=lambda command: said.append(command) or ended_well)
    monkeypatch.setattr(importlib.import_module("real_study"), "subprocess", running)
    with pytest.raises(SystemExit) as ended:
        run("real_study", *words, monkeypatch=monkeypatch)
    assert ended.value.code == 0
    (command,) = said
    sets = [word for flag, word in pairwise(command) if flag == "--set"]
    return command, command[command.index("study") + 1], sets


@needs_data
def test_a_file_for_real_models_runs_as_it_says(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = "{method: Mix, seed: 4}"
    words = [str(tmp_path), "--base", str(model_folder), "--data", str(DATA), "--longest", "500"]
    words += ["--study", "real_again", "--cell", line]
    command, name, sets = real_study(monkeypatch, *words)
    file, told = load_study(name), load_study(name, sets)
    assert (told.seeds, told.budget) == (file.seeds, file.budget)
    assert told.world["limit"] == file.world["limit"] == 24
    tested = (tmp_path / "data" / "pair.test.jsonl").read_text().splitlines()
    assert len(tested) == 24
    assert command[command.index("--cell") + 1] == line


@needs_data
def test_a_study_on_real_data(
    data: str, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every recipe of it, and the cell that uses the most of its data."""
    words = [str(tmp_path), "--base", str(model_folder), "--data", data, "--quick"]
    _, name, sets = real_study(monkeypatch, *words, "--longest", "500")
    study = load_study(name, sets)
    Study(study, tmp_path / "study", tmp_path / "cache")
    (cell, *_) = [c for c in reported(study, settled(study)) if c.method == "UFT"]
    ground = prepare(cell.world, cell.seed, tmp_path / "cache")
    state = run_cell(cell, ground, tmp_path / "cell", tmp_path / "cache", False)
    assert state == "done", (tmp_path / "cell" / "log.txt").read_text()


@needs_data
def test_multiple_choice(
    data: str,
    model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("lm_eval")  # extra `eval`
    run("evaluate", str(model_folder), data, "--quick", "--only", "sums", monkeypatch=monkeypatch)
    line, _ = [x for x in capsys.readouterr().out.splitlines() if x.startswith("sums")]
    assert float(line.split()[4]) < 1e-3
