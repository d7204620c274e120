"""A full disk costs the run and nothing else, and the line that ends it says what is whole.

The fault is put at each rename and each wait for the disk of a small run, one after another; what
libraries say of a full disk is what they really say, of a file that may not grow.
"""

from __future__ import annotations

import os
import resource
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import save_file
from support.tiny import write_recipe
from typer.testing import CliRunner

from bench.faults.disk import failing
from onestage.cli._terminal import app
from onestage.runfolder.disk import (
    DiskFullError,
    no_room,
    whole_file,
    whole_folder,
    whole_path,
    write_text,
)
from onestage.runfolder.seal import damage
from onestage.training.checkpoints import Checkpoints

Make = Callable[..., dict[str, Any]]
EVERY = int(os.environ.get("ONESTAGE_EVERY_SITE", "7"))
"""Of the places where a run may find no room, every how many is tried."""


@contextmanager
def no_file_over(most: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


WRITERS: dict[str, Callable[[Path], object]] = {
    "python": lambda file: file.write_bytes(bytes(100_000)),
    "safetensors": lambda file: save_file({"a": np.zeros(100_000, "f4")}, file),
    "torch": lambda file: torch.save({"a": torch.zeros(100_000)}, file),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_library_that_has_no_room_is_one_error(name: str, tmp_path: Path) -> None:
    folder, file = tmp_path / "model", tmp_path / "a.bin"
    with whole_folder(folder) as draft:
        (draft / "old").write_text("old")
    write_text(file, "old")
    said = r"the disk is full \(.+\): .*/{} could not be written; what was there before is whole"
    found = pytest.raises(DiskFullError, match=said.format("model"))
    with no_file_over(10_000), found, whole_folder(folder) as draft:
        WRITERS[name](draft / "weights")
    found = pytest.raises(DiskFullError, match=said.format("a.bin"))
    with no_file_over(10_000), found, whole_path(file) as draft:
        WRITERS[name](draft)
    assert (folder / "old").read_text() == file.read_text() == "old"
    assert sorted(tmp_path.iterdir()) == [file, folder]  # no drafts


@pytest.mark.parametrize(
    "said",
    [
        "basic_ios::clear: iostream error",  # of torch, where a file is closed
        "[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0",
        "Error while serializing: I/O error: No space left on device (os error 28)",
    ],
)
def test_words_that_libraries_have_for_a_full_disk(said: str) -> None:
    assert no_room(RuntimeError(said))


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    text = "a row says: No space left on device"
    with pytest.raises(ValueError, match=text), whole_file(tmp_path / "a"):
        raise ValueError(text)
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*/none to write a into"):
        write_text(tmp_path / "none" / "a", "")


def trained(file: Path, out: Path, *words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["train", str(file), "--out", str(out), *words])
    return done.exit_code, done.output


@pytest.fixture
def recipe(recipe_of: Make, tmp_path: Path) -> Path:
    content = recipe_of("demonstration", objective="sft")
    content["cache_dir"] = str(tmp_path / "cache")
    content["train"] |= {"max_steps": 4, "save_steps": 2, "save_total_limit": 1}
    return write_recipe(tmp_path / "r.yaml", content)


def test_a_run_that_finds_no_room_can_be_gone_on_with(recipe: Path, tmp_path: Path) -> None:
    """Wherever it happens: one line, every checkpoint whole, and the command it names ends the run."""
    with failing(0) as met:
        assert trained(recipe, tmp_path / "whole")[0] == 0
    assert len(met) > 60
    for number in range(1, len(met) + 1, EVERY):
        shutil.rmtree(tmp_path / "cache")
        out = tmp_path / f"out{number}"
        with failing(number):
            code, output = trained(recipe, out)
        where = met[number - 1]
        if code == 0:
            continue  # it was tried again, and then there was room
        *_, line = output.rstrip().split("\n")
        assert "Traceback" not in output, (where, output)
        assert line.startswith("error: the disk is full (No space left on device): "), (where, line)
        saved = Checkpoints(out).all()
        assert not any(map(damage, saved)), where
        assert (f"{saved[-1]} is whole" if saved else "no checkpoint was written") in line, where
        again = ["--resume"] if "--resume" in line else []
        code, output = trained(recipe, out, *again)
        assert code == 0, (where, line, output)
        left = [str(path) for path in out.rglob(".*-*")]
        assert not left, where


def test_a_disk_that_is_too_small_for_a_later_stage_is_told_as_a_full_one(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the stage begins, and with the command that goes on from the stage before."""
    content = yaml.safe_load(recipe.read_text())
    content["stages"] = [{"name": "a"}, {"name": "b"}]
    write_recipe(recipe, content)
    out, real = tmp_path / "out", shutil.disk_usage

    def usage(folder: Path) -> Any:
        return SimpleNamespace(free=0) if folder.name == "2-b" else real(folder)

    with monkeypatch.context() as patch:
        patch.setattr("onestage.runfolder.disk.shutil.disk_usage", usage)
        code, output = trained(recipe, out)
    *_, line = output.rstrip().split("\n")
    assert code == 1
    assert line.startswith("error: the disk is full (0.0 MB free, the trained model needs 0.")
    assert "stage 1-a is done" in line
    assert line.endswith("run the same command again with --resume")
    assert trained(recipe, out, "--resume")[0] == 0


def modes(folder: Path) -> set[tuple[str, int]]:
    return {
        ("folder" if path.is_dir() else "file", stat.S_IMODE(path.stat().st_mode))
        for path in [folder, *folder.rglob("*")]
        if not path.is_symlink() and not path.name.endswith(".lock")
    }


def test_files_have_the_permissions_that_umask_leaves(recipe: Path, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        assert trained(recipe, tmp_path / "out")[0] == 0
    finally:
        os.umask(before)
    for folder in (tmp_path / "out", tmp_path / "cache"):
        assert modes(folder) == {("folder", 0o750), ("file", 0o640)}
