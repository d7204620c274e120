"""Bases are made once for a content, whole or not at all; rows are files."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from onestage.data.kinds import KINDS
from onestage.studies.lab import ground
from onestage.studies.lab.ground import GroundError, make_base, write_rows
from onestage.studies.lab.own import BEGINNING, write_own
from onestage.studies.lab.presets import PRESETS, base_config, pretraining_settings
from onestage.studies.lab.source import SPLITS
from onestage.studies.lab.world import SIZES, LabWorld
from onestage.training.callbacks import Callback
from onestage.training.recipe import parse_recipe
from onestage.training.run import Run


def silent(_: str) -> None:
    pass


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few documents, few steps."""
    for size in SIZES:
        monkeypatch.setitem(SIZES, size, replace(SIZES[size], documents=200))
    monkeypatch.setattr(
        ground,
        "pretraining_settings",
        lambda preset: {**pretraining_settings(preset), "max_steps": 2, "batch_size": 2},
    )


def test_a_base_is_an_ordinary_model_folder(tmp_path: Path) -> None:
    folder = make_base(LabWorld(1), tmp_path, say=silent)
    model, tokenizer = (
        kind.from_pretrained(folder) for kind in (AutoModelForCausalLM, AutoTokenizer)
    )
    assert 0.3e6 < model.num_parameters() < 1e6
    assert model.config.vocab_size == len(tokenizer)
    ids = tokenizer("the color of", return_tensors="pt").input_ids
    assert model(ids).logits.shape == (1, 4, len(tokenizer))
    assert folder.parents[1] == tmp_path / "lab" / "bases"
    assert (folder.parent / "metrics.jsonl").is_file()
    recipe = (folder.parent / "recipe.yaml").read_text()
    assert str(tmp_path / "lab" / "texts") in recipe


def test_a_base_is_found_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = count_runs(monkeypatch)
    first = make_base(LabWorld(1), tmp_path, say=silent)
    assert make_base(LabWorld(1), tmp_path, say=silent) == first
    assert len(trained) == 1
    others = {
        make_base(LabWorld(2), tmp_path, say=silent),
        make_base(LabWorld(1), tmp_path, seed=1),
    }
    settings = {**ground.pretraining_settings("small"), "learning_rate": 1e-3}
    monkeypatch.setattr(ground, "pretraining_settings", lambda _: settings)
    others.add(make_base(LabWorld(1), tmp_path, say=silent))
    assert len(others | {first}) == 4
    assert len(trained) == 4


def count_runs(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that are trained in from now on."""
    found: list[Path] = []
    train = ground.carry_out

    def counted(recipe: Any, out: Path, **how: Any) -> Path:
        found.append(out)
        return train(recipe, out, **how)

    monkeypatch.setattr(ground, "carry_out", counted)
    return found


class Killed(Callback):
    def step(self, run: Run, loss: float) -> None:
        raise KeyboardInterrupt


class Stopped(Callback):
    def step(self, run: Run, loss: float) -> None:
        run.stop = True


def test_a_killed_one_leaves_nothing_that_looks_finished(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        make_base(LabWorld(1), tmp_path, say=silent, callbacks=[Killed()])
    with pytest.raises(GroundError, match="stopped"):
        make_base(LabWorld(1), tmp_path, say=silent, callbacks=[Stopped()])
    bases = tmp_path / "lab" / "bases"
    assert not [path for path in bases.iterdir() if not path.name.startswith(".")]
    folder = make_base(LabWorld(1), tmp_path, say=silent)
    assert (folder / "model.safetensors").is_file()
    assert [path.name for path in bases.iterdir() if path.is_dir()] == [folder.parent.name]


def test_two_who_ask_at_once_get_one_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = count_runs(monkeypatch)
    found: list[Path] = []
    meet = threading.Barrier(2)
    alone = ground._alone

    def together(folder: Path) -> Any:
        """Both have seen that there is no base before either makes one."""
        meet.wait(30)
        return alone(folder)

    monkeypatch.setattr(ground, "_alone", together)

    def ask() -> None:
        found.append(make_base(LabWorld(1), tmp_path, say=silent))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert len(set(found)) == len(trained) == 1


def test_rows_are_files_of_their_kind(tmp_path: Path) -> None:
    files = write_rows(LabWorld(1), tmp_path)
    assert set(files) == {f"{kind}.{split}" for kind in KINDS for split in SPLITS}
    for name, file in files.items():
        kind, split = name.split(".")
        assert file == tmp_path / f"{name}.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        assert rows == LabWorld(1).rows(kind, split)  # type: ignore[arg-type]


def test_rows_that_are_there_stay(tmp_path: Path) -> None:
    files = write_rows(LabWorld(1), tmp_path)
    before = {name: file.stat().st_ino for name, file in files.items()}
    files["pair.test"].write_text("something else\n")
    after = {name: file.stat().st_ino for name, file in write_rows(LabWorld(1), tmp_path).items()}
    assert {name for name in before if before[name] != after[name]} <= {"pair.test"}
    assert files["pair.test"].read_text() != "something else\n"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_the_large_preset_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One step of a short run, in float32, in which every processor is quick; the settings are those
    of a recipe."""
    short = ground.pretraining_settings
    monkeypatch.setattr(
        ground, "pretraining_settings", lambda preset: {**short(preset), "bf16": False}
    )
    world = LabWorld(0, "large")
    folder = make_base(world, tmp_path, "large", say=silent)
    config = AutoConfig.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert 25e6 < model.num_parameters() < 100e6
    assert len(world.almanac.split_of) == 1024 + 512
    assert config.hidden_size == PRESETS["large"].config["hidden_size"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    whole = {
        "model": {"config": base_config(tokenizer, "large"), "tokenizer": str(folder)},
        "data": [{"name": "text", "path": "text.jsonl"}],
        "objective": "sft",
        "train": pretraining_settings("large"),
    }
    assert parse_recipe(whole).train.bf16


def test_what_the_base_says_itself(tmp_path: Path) -> None:
    """Rows of demonstrations behind beginnings of the world's texts; of a base that has learned nothing
    most are cut, which is told."""
    world, told = LabWorld(1), list[str]()
    base = make_base(world, tmp_path, say=silent)
    for name, seed in (("first", 0), ("same", 0), ("other", 1)):
        write_own(base, world, tmp_path / name, 64, seed=seed, say=told.append)
    first, same, other = (
        (tmp_path / name / "own.train.jsonl").read_text() for name in ("first", "same", "other")
    )
    assert first == same != other
    found = [json.loads(line) for line in first.splitlines()]
    assert 0 < len(found) < 64
    assert f"{len(found)} continuations by the base, {64 - len(found)} were cut" in told[0]
    begun = {" ".join(row["text"].split()[:BEGINNING]) for row in world.rows("text", "train")}
    assert {row["prompt"] for row in found} <= begun
    write_own(base, world, tmp_path / "first", 8, seed=1, say=told.append)  # is there
    assert (tmp_path / "first/own.train.jsonl").read_text() == first
    with pytest.raises(ValueError, match="own may be at most 256"):
        write_own(base, world, tmp_path / "more", 999, seed=0, say=silent)
