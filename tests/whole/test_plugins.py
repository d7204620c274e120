"""Other people's objectives, schedules and rewards: from a package that is installed, a module, a file,
or Python, without a line of ours changed."""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
import textwrap
import venv
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from support.tiny import ROOT, write_recipe, write_rows

import onestage as one
from onestage.config import RecipeError, plugins
from onestage.runfolder import OutputError, read_metrics

Make = Callable[..., dict[str, Any]]

HINGE = '''
"""Hinge on the margin of log-ratios (SLiC, Zhao et al. 2023, arXiv 2305.10425)."""

from dataclasses import dataclass

from onestage.objectives import Objective


@dataclass(frozen=True)
class Hinge(Objective):
    unit = "pair"
    kinds = frozenset({"pair"})
    beta: float = 0.1

    def losses(self, batch):
        return (1 - self.beta * batch.margin_P()).clamp(min=0)
'''
TURNS = '''
"""Terms in turn, one a step."""

from dataclasses import dataclass

from onestage.schedules import Schedule


@dataclass
class Turns(Schedule):
    def weigh(self, step):
        terms = list(self.weights)
        return {term: float(number == step % len(terms)) for number, term in enumerate(terms)}
'''
SHORT = '''
"""Short answers are good answers."""

from dataclasses import dataclass

from onestage.rollout.rewards import Reward


@dataclass(frozen=True)
class Short(Reward):
    limit: int = 10

    def __call__(self, answers):
        return [max(0.0, 1 - len(answer.completion) / self.limit) for answer in answers]
'''
ENTRY_POINTS = """
[onestage.objectives]
hinge = mylosses.hinge:Hinge

[onestage.schedules]
turns = mylosses.turns:Turns

[onestage.rewards]
short = mylosses.short:Short
"""


def wheel(folder: Path) -> Path:
    """A small package of somebody else's, built by hand: three modules and their entry points."""
    file, about = folder / "mylosses-0.3-py3-none-any.whl", "mylosses-0.3.dist-info"
    content = {
        "mylosses/__init__.py": "",
        "mylosses/hinge.py": HINGE,
        "mylosses/turns.py": TURNS,
        "mylosses/short.py": SHORT,
        f"{about}/METADATA": "Metadata-Version: 2.1\nName: mylosses\nVersion: 0.3\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/entry_points.txt": ENTRY_POINTS,
    }
    with zipfile.ZipFile(file, "w") as opened:
        for name, text in content.items():
            opened.writestr(name, text)
        record = "".join(f"{name},,\n" for name in [*content, f"{about}/RECORD"])
        opened.writestr(f"{about}/RECORD", record)
    return file


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment that holds the package, and sees what this one has."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    found = folder / "bin" / "python"
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(found),
        "install",
        "--quiet",
        "--no-deps",
    ]
    subprocess.run([*install, "--no-index", str(wheel(folder))], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "ours.pth").write_text("\n".join([str(ROOT), *site.getsitepackages()]) + "\n")
    return found


def call(python: Path, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [python, "-m", "onestage", *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**environment, "COLUMNS": "200"},
        timeout=240,
    )


def test_an_installed_package_is_used_like_ours(
    recipe_of: Make, python: Path, tmp_path: Path
) -> None:
    """Objective, schedule and reward by the names that the package gives them."""
    problems = [{"prompt": f"say {n}", "answer": str(n)} for n in range(6)]
    recipe = recipe_of("pair", "demonstration", train__max_steps=4)
    file = write_rows(tmp_path / "problems.jsonl", problems)
    recipe["data"].append({"name": "asked", "path": str(file), "kind": "check", "reward": "short"})
    recipe["objective"] = {"pair": {"name": "hinge", "beta": 0.5}, "demonstration": "sft"}
    recipe["objective"]["asked"] = "grpo"
    recipe["schedule"] = "turns"
    recipe["rollout"] = {"num_generations": 2, "max_completion_length": 6}
    done = call(python, "train", str(write_recipe(tmp_path / "r.yaml", recipe)), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = read_metrics(tmp_path / "runs" / "r")
    assert len([line for line in lines if "loss" in line]) == 4
    assert lines[0]["loss"] == pytest.approx(1.0)  # hinge at a margin of 0, the only term of step 0
    plugins = json.loads((tmp_path / "runs" / "r" / "manifest.json").read_text())["plugins"]
    assert {name: one["from"] for name, one in plugins.items()} == {
        "Hinge": "mylosses.hinge",
        "Turns": "mylosses.turns",
        "Short": "mylosses.short",
    }


def test_it_is_listed_with_its_paper(python: Path, tmp_path: Path) -> None:
    shown = call(python, "list", "objectives", cwd=tmp_path).stdout
    lines = [line.strip() for line in shown.splitlines()]
    (at,) = [number for number, line in enumerate(lines) if line.startswith("hinge")]
    told = " ".join(lines[at : at + 4])
    assert "SLiC" in told
    assert "pair; counted by pair" in told
    assert "from mylosses 0.3" in told


def test_a_mistyped_name_is_near_a_stranger_s(
    recipe_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = metadata.EntryPoint("hinge", "mylosses.hinge:Hinge", "onestage.objectives")
    monkeypatch.setattr(plugins, "_entry_points", lambda: metadata.EntryPoints([point]))
    with pytest.raises(ValueError, match=r"did you mean 'hinge'\?"):
        one.train(recipe_of("pair", objective="hing"), out=tmp_path / "out")


def test_a_file_beside_the_recipe_and_python(recipe_of: Make, tmp_path: Path) -> None:
    """The same class by its file and as an instance gives the same losses."""
    (tmp_path / "hinge.py").write_text(HINGE)
    path = f"{tmp_path / 'hinge.py'}:Hinge"
    recipe = recipe_of("pair", objective={"name": path, "beta": 0.5})
    first = one.train(recipe, out=tmp_path / "file", say=lambda _: None)
    found = one.objectives.PLUGINS.find(path)
    second = one.train(
        recipe, objective=found(beta=0.5), out=tmp_path / "python", say=lambda _: None
    )
    losses = [[line["loss"] for line in run.metrics] for run in (first, second)]
    assert losses[0] == losses[1]
    told = (tmp_path / "python" / "recipe.yaml").read_text()
    assert "Hinge" in told
    assert "beta: 0.5" in told


ENGINE = """
from dataclasses import dataclass
from typing import Any

from onestage.rollout.engines import Engine
from onestage.rollout.engines.transformers import Transformers


@dataclass
class Loud(Engine):
    model: Any
    tokenizer: Any
    file: str = ""

    def __call__(self, requests, how):
        with open(self.file, "a") as opened:
            print(len(requests), file=opened)
        return Transformers(self.model, self.tokenizer)(requests, how)
"""


def test_a_stranger_s_engine_samples(recipe_of: Make, tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text(ENGINE)
    problems = [{"prompt": f"say {n}", "answer": str(n)} for n in range(4)]
    recipe = recipe_of("demonstration", objective="grpo", train__max_steps=1)
    file = write_rows(tmp_path / "problems.jsonl", problems)
    recipe["data"] = [{"name": "asked", "path": str(file), "kind": "check", "reward": "match"}]
    engine = {"name": f"{tmp_path / 'loud.py'}:Loud", "file": str(tmp_path / "heard")}
    recipe["rollout"] = {"num_generations": 2, "max_completion_length": 4, "engine": engine}
    run = one.train(recipe, out=tmp_path / "run", say=lambda _: None)
    assert (tmp_path / "heard").read_text().split()
    assert "Loud" in json.loads((run.out / "manifest.json").read_text())["plugins"]
    for wrong, told in (
        ({**engine, "fil": "x"}, "unknown option 'fil'"),
        ("vlm", "did you mean 'vllm'"),
    ):
        recipe["rollout"]["engine"] = wrong
        (checked,) = one.check(recipe)  # before anything is loaded, as train would
        assert any(told in line for line in checked.findings.errors)


def test_a_resumed_run_refuses_another_class(recipe_of: Make, tmp_path: Path) -> None:
    (tmp_path / "hinge.py").write_text(HINGE)
    recipe = recipe_of(
        "pair", objective=f"{tmp_path / 'hinge.py'}:Hinge", train__max_steps=4, train__save_steps=2
    )

    class Stop(one.Callback):
        def step(self, run: Any, loss: float) -> None:
            run.stop = run.step == 2

    one.train(recipe, out=tmp_path / "run", say=lambda _: None, callbacks=[Stop()])
    (tmp_path / "hinge.py").write_text(HINGE + "\n# another thought\n")
    with pytest.raises(OutputError, match="was begun with another Hinge"):
        one.train(recipe, out=tmp_path / "run", say=lambda _: None, resume=True)
    (tmp_path / "hinge.py").write_text(HINGE)
    assert one.train(recipe, out=tmp_path / "run", say=lambda _: None, resume=True).done


BROKEN = {
    "nobody": ("", "there.is.none:Hinge", "No module named 'there'"),
    "two classes": (
        HINGE + HINGE.replace("Hinge(", "Other("),
        "./bad.py",
        "say which class; there is",
    ),
    "not of the contract": ("class Hinge: pass", "./bad.py:Hinge", "is no subclass of"),
    "abstract": (
        HINGE.replace("def losses", "def other"),
        "./bad.py:Hinge",
        "lacks losses, which onestage.objectives.Objective",
    ),
    "no dataclass": (
        HINGE.replace("@dataclass(frozen=True)\n", ""),
        "./bad.py:Hinge",
        "must be a dataclass",
    ),
    "raises on import": ("raise OSError('no licence')", "./bad.py:Hinge", "OSError: no licence"),
    "breaks a law": (
        HINGE.replace(".clamp(min=0)", ".clamp(min=0) + batch.logp_K.sum()"),
        "./bad.py:Hinge",
        "breaks its contract:\n  cut",
    ),
    "mistyped": (HINGE, "./bad.py:Hing", "did you mean 'Hinge'?"),
    "no file": ("", "./worse.py:Hinge", "no file"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_plug_in_that_cannot_be_used_is_told_in_a_line(
    case: str, recipe_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, name, told = BROKEN[case]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.py").write_text(textwrap.dedent(text))
    with pytest.raises((RecipeError, ValueError)) as caught:
        one.train(recipe_of("pair", objective=name), out=tmp_path / "run", say=lambda _: None)
    assert told in str(caught.value)


def test_a_built_in_name_is_not_taken_by_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    theirs = metadata.EntryPoint("dpo", "mylosses.hinge:Hinge", "onestage.objectives")
    monkeypatch.setattr(plugins, "_entry_points", lambda: metadata.EntryPoints([theirs]))
    with pytest.raises(ValueError, match=r"'dpo' is built in, .*'mylosses.hinge:Hinge'"):
        one.objectives.PLUGINS.find("dpo")


def test_names_of_the_version_before_say_where_they_are() -> None:
    with pytest.raises(ImportError, match=r"onestage\.run_recipe is now onestage\.train"):
        from onestage import run_recipe  # noqa: F401
    with pytest.raises(ImportError, match=r"now onestage\.training\.recipe\.Recipe"):
        from onestage import Recipe  # noqa: F401
