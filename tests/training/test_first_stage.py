"""What several chains begin with is trained once, and never taken for another run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from onestage.runfolder import disk, read_json, read_metrics
from onestage.training import first_stage
from onestage.training.callbacks import Callback
from onestage.training.first_stage import FILE, seconds_taken
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe

Make = Callable[..., dict[str, Any]]
Do = Callable[..., tuple[Path, list[str]]]
"""Carries a recipe out under a name; returns the folder, and what was said of trained stages."""
SFT = {"name": "sft", "streams": ["demonstrations"], "objective": "sft"}


def chain(recipe_of: Make, model: Path, beta: float = 0.1, **train: Any) -> dict[str, Any]:
    then = {"name": "dpo", "streams": ["pairs"], "reference": "start"}
    stages = [SFT, {**then, "objective": {"name": "dpo", "beta": beta}}]
    recipe = recipe_of("demonstration", "pair", stages=stages)
    recipe["model"] = {"name": str(model)}
    recipe["train"] |= {"max_steps": 2, "learning_rate": 1e-2, **train}
    return recipe


@pytest.fixture
def do(tmp_path: Path) -> Do:
    def go(recipe: dict[str, Any], name: str, **how: Any) -> tuple[Path, list[str]]:
        lines: list[str] = []
        how = {"first_stages": tmp_path / "kept", "self_check": False, "say": lines.append, **how}
        carry_out(parse_recipe(recipe), tmp_path / name, **how)
        return tmp_path / name, [line for line in lines if "trained" in line]

    return go


def test_what_was_trained_is_taken(recipe_of: Make, model_folder: Path, do: Do) -> None:
    """And the whole chain ends as it would have, to the bit."""
    first, said = do(chain(recipe_of, model_folder), "first")
    assert not said
    other, said = do(chain(recipe_of, model_folder, beta=0.5), "other")
    assert said == [f"trained before, in {first / '1-sft'}: taken from there"]
    alone, _ = do(chain(recipe_of, model_folder, beta=0.5), "alone", first_stages=None)
    for stage in ("1-sft", "2-dpo"):
        weights, mine = (
            load_file(run / stage / "model" / "model.safetensors") for run in (alone, other)
        )
        assert all(mine[name].equal(weight) for name, weight in weights.items())
        told, logged = (
            [
                {k: v for k, v in line.items() if "second" not in k}
                for line in read_metrics(run / stage)
            ]
            for run in (alone, other)
        )
        assert logged == told
    assert (
        read_json(other / "stages.json")[1]["recipe"]
        == read_json(alone / "stages.json")[1]["recipe"]
    )
    assert seconds_taken(other) == read_json(other / "1-sft" / FILE)["seconds"] > 0
    assert seconds_taken(first) == seconds_taken(alone) == 0


@pytest.mark.parametrize("what", ["rate", "rows", "model", "source", "callbacks"])
def test_another_run_is_not_taken(
    what: str,
    recipe_of: Make,
    model_folder: Path,
    tmp_path: Path,
    do: Do,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One of another rate, of other rows or weights in the same files, of another version of ours, or
    one that somebody looks on."""
    model = tmp_path / "model"
    shutil.copytree(model_folder, model)
    recipe = chain(recipe_of, model)
    do(recipe, "first")
    assert do(recipe, "again")[1]
    how: dict[str, Any] = {}
    if what == "rate":
        recipe["train"]["learning_rate"] = 2e-2
    elif what == "rows":
        file = Path(recipe["data"][0]["path"])
        rows = file.read_text().splitlines(keepends=True)
        file.write_text("".join(rows[1:]))
    elif what == "model":
        weights = load_file(model / "model.safetensors")
        more = {name: weight * 1.5 for name, weight in weights.items()}
        save_file(more, model / "model.safetensors", metadata={"format": "pt"})
    elif what == "source":
        monkeypatch.setattr(first_stage, "code_digest", lambda: "another")
    else:
        how["callbacks"] = [Callback()]
    assert not do(recipe, "other", **how)[1]


def test_what_is_damaged_is_trained_anew(
    recipe_of: Make, model_folder: Path, tmp_path: Path, do: Do
) -> None:
    recipe = chain(recipe_of, model_folder)
    do(recipe, "first")
    (kept,) = (tmp_path / "kept").iterdir()
    (kept / "metrics.jsonl").write_text("")
    (said,) = do(recipe, "other")[1]
    assert said.startswith("what was kept of this stage is damaged (metrics.jsonl has 0 bytes")
    (said,) = do(recipe, "third")[1]
    assert said.startswith("trained before, in ")


def test_a_full_disk_costs_no_run(
    recipe_of: Make,
    model_folder: Path,
    tmp_path: Path,
    do: Do,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: Any) -> None:
        raise disk.DiskFullError(tmp_path / "kept", "No space left on device")

    monkeypatch.setattr(first_stage, "_copy", full)
    run, _ = do(chain(recipe_of, model_folder), "first")
    assert (run / "model" / "model.safetensors").is_file()
    assert not [*(tmp_path / "kept").glob("[!.]*")]
