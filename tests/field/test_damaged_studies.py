"""What a study stands on and has found is what was written, or is made anew: never other numbers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.small_studies import content, ground

from onestage.runfolder import read_json
from onestage.studies import run_cell
from onestage.studies.file import parse_study
from onestage.studies.lab import ground as lab
from onestage.studies.lab.lock import LockWorld
from onestage.studies.lab.lock_base import make_lock_base
from onestage.studies.lab.presets import pretraining_settings
from onestage.studies.lab.world import SIZES, LabWorld
from onestage.studies.study import Study

FEW = {"attempts": 64, "train": {"max_steps": 2, "batch_size": 8}}


def lock(cache: Path, say: Callable[[str], None]) -> Path:
    return make_lock_base(LockWorld(3, 4), cache, say, **FEW)  # type: ignore[arg-type]


def world(cache: Path, say: Callable[[str], None]) -> Path:
    return lab.make_base(LabWorld(1), cache, say=say)


def halve(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    raw[-3] ^= 1
    file.write_bytes(raw)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    short = {"max_steps": 2, "batch_size": 2}
    for size in SIZES:
        monkeypatch.setitem(SIZES, size, replace(SIZES[size], documents=50))
    monkeypatch.setattr(
        lab, "pretraining_settings", lambda size: {**pretraining_settings(size), **short}
    )


@pytest.mark.parametrize("make", [lock, world])
@pytest.mark.parametrize("damage", [halve, flip, Path.unlink])
def test_a_damaged_base_of_a_world_is_made_anew(
    make: Callable[[Path, Callable[[str], None]], Path],
    damage: Callable[[Path], None],
    tmp_path: Path,
) -> None:
    said: list[str] = []
    base = make(tmp_path, said.append)
    files = {file.name: file.read_bytes() for file in base.iterdir()}
    for name in ("model.safetensors", "tokenizer.json"):
        damage(base / name)
        said.clear()
        assert make(tmp_path, said.append) == base
        assert sum("is damaged" in line and "made anew" in line for line in said) == 1
        assert {file.name: file.read_bytes() for file in base.iterdir()} == files
    said.clear()
    make(tmp_path, said.append)
    assert len(said) == 1  # found, and whole


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, model_folder: Path
) -> tuple[dict[str, Any], Path]:
    """A study, and its folder when it is done."""
    folder = tmp_path_factory.mktemp("study")
    file = content(*ground(folder / "ground", model_folder), seeds=[0])
    assert not done(file, folder / "out", [])[0]
    return file, folder / "out"


def done(
    file: dict[str, Any], out: Path, said: list[str]
) -> tuple[dict[str, str], dict[str, float]]:
    outcome = Study(parse_study(file), out, out.parent / "cache", say=said.append).go()
    found = {row.metric: row.value for row in outcome.rows if row.cell == "SFT-seed=0"}
    return outcome.failed, found | {"seconds": 0}


@pytest.mark.parametrize("name", ["status.json", "results.json", "cell.json"])
@pytest.mark.parametrize("text", ["", "[]", "\0", '{"imitation": 0.123}', "[" * 10_000])
def test_a_damaged_cell_is_done_again(
    name: str, text: str, whole: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    """Not left out of the tables, and not believed."""
    file, before = whole
    out, said = tmp_path / "out", list[str]()
    shutil.copytree(before, out)
    (out / "cells" / "SFT-seed=0" / name).write_text(text)
    failed, found = done(file, out, said)
    assert not failed
    assert len(found) > 9
    assert found == done(file, before, [])[1]
    assert sum("SFT-seed=0: " in line and "damaged" in line for line in said) == 1
    said.clear()
    done(file, out, said)
    assert not any("damaged" in line for line in said)


def test_a_cell_that_is_killed_at_its_end_goes_on_to_its_results(
    whole: tuple[dict[str, Any], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its results were written, and that it is done was not: the model must still be there."""
    file, before = whole
    out, real, cell = tmp_path / "out", run_cell._tell, "SFT_then_DPO-seed=0"

    def told(folder: Path, state: str, *rest: Any, **more: Any) -> None:
        if state == "done" and folder.name == cell:
            raise KeyboardInterrupt
        real(folder, state, *rest, **more)

    monkeypatch.setattr(run_cell, "_tell", told)
    with pytest.raises(KeyboardInterrupt):
        done(file, out, [])
    monkeypatch.setattr(run_cell, "_tell", real)
    failed, _ = done(file, out, [])
    assert not failed
    results = [read_json(at / "cells" / cell / "results.json") for at in (out, before)]
    assert results[0] | {"seconds": 0} == results[1] | {"seconds": 0}
    assert not list((out / "cells").rglob("*.safetensors"))
