"""A checkpoint that is written beside the run is the one that would have been written in it."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.ranks import on_ranks

from bench.faults.runs import digest
from onestage.config import RecipeError
from onestage.models import Model
from onestage.runfolder import read_metrics, silent
from onestage.runfolder.disk import DiskFullError
from onestage.training import checkpoints
from onestage.training.callbacks import Callback
from onestage.training.checkpoints import Checkpoints
from onestage.training.choices import check_saving
from onestage.training.pipeline import carry_out
from onestage.training.recipe import Train, parse_recipe
from onestage.training.run import Run

Make = Callable[..., dict[str, Any]]


def go(recipe: dict[str, Any], out: Path, *, resume: bool = False, **more: Any) -> None:
    carry_out(parse_recipe(recipe), out, resume=resume, say=silent, self_check=False, **more)


@pytest.fixture
def recipe(recipe_of: Make) -> dict[str, Any]:
    made = recipe_of("demonstration", "pair", objective="uft")
    made["train"] |= {"max_steps": 4, "save_steps": 2, "async_save": True}
    return made


def forget(out: Path, after: int) -> None:
    """What came after a step, as if the run had been ended then."""
    shutil.rmtree(out / "model", ignore_errors=True)
    for checkpoint in Checkpoints(out).all():
        if int(checkpoint.name.removeprefix("step-")) > after:
            shutil.rmtree(checkpoint)


class Waiting:
    """Writing that waits for the run to have gone on."""

    def __init__(self, write: Callable[..., None]) -> None:
        self.write, self.went_on = write, threading.Event()

    def __call__(self, *given: Any) -> None:
        assert self.went_on.wait(20), "the run waits for what is written"
        self.write(*given)

    @property
    def callback(self) -> Callback:
        class GoingOn(Callback):
            def step(_, run: Run, loss: float) -> None:
                if run.step == 3:
                    self.went_on.set()

        return GoingOn()


@pytest.mark.parametrize("how", ["whole", "lora", "bfloat16"])
def test_it_holds_the_step_that_it_is_of(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    recipe["model"] |= {"lora": {"lora": {"r": 2}}, "bfloat16": {"dtype": "bfloat16"}}.get(how, {})
    recipe["train"]["average"] = "ema"
    go({**recipe, "train": {**recipe["train"], "async_save": False}}, tmp_path / "in")
    waiting = Waiting(checkpoints.fill_model)
    monkeypatch.setattr(checkpoints, "fill_model", waiting)
    go(recipe, tmp_path / "beside", callbacks=[waiting.callback])
    monkeypatch.undo()
    for mine, theirs in zip(
        *(Checkpoints(tmp_path / name).all() for name in ("in", "beside")), strict=True
    ):
        for file in (mine / "model").glob("*.safetensors"):
            assert file.read_bytes() == (theirs / "model" / file.name).read_bytes(), file.name
        was, now = (torch.load(folder / "training.pt") for folder in (mine, theirs))
        assert str(was) == str(now)  # tensors are told by their numbers
        torch.testing.assert_close(_tensors(was), _tensors(now), rtol=0, atol=0)
    forget(tmp_path / "beside", after=2)
    go(recipe, tmp_path / "beside", resume=True)
    assert digest(tmp_path / "beside") == digest(tmp_path / "in")


def _tensors(content: Any) -> list[torch.Tensor]:
    if isinstance(content, torch.Tensor):
        return [content]
    parts = content.values() if isinstance(content, dict) else content
    if not isinstance(content, dict | list | tuple):
        return []
    return [tensor for part in parts for tensor in _tensors(part)]


def test_so_do_the_parts_of_many_ranks(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe["distributed"] = {"sharding": "full"}

    def work(out: Path, resume: bool) -> None:
        waiting = Waiting(checkpoints.fill_model)
        checkpoints.fill_model = waiting  # type: ignore[assignment]
        if resume:
            waiting.went_on.set()
        go(recipe, out, resume=resume, callbacks=[waiting.callback])

    out = tmp_path / "out"
    on_ranks(2, work, out, False, seconds=60)
    straight = digest(out)
    forget(out, after=2)
    on_ranks(2, work, out, True, seconds=60)
    assert digest(out) == straight


def test_a_run_that_is_killed_while_it_writes_goes_on_from_the_one_before(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    out, child = tmp_path / "out", os.fork()
    if not child:
        seal, sealed = checkpoints.seal, []

        def last(draft: Path) -> None:
            sealed.append(draft)
            if len(sealed) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            seal(draft)

        checkpoints.seal = last
        torch.set_num_threads(1)
        go(recipe, out)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert Checkpoints(out).newest().name == "step-000002"
    go(recipe, out, resume=True)
    go(recipe, tmp_path / "straight")
    assert digest(out) == digest(tmp_path / "straight")


def test_a_full_disk_ends_the_run_in_the_step_under_way(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class Slow(Callback):
        def step(self, run: Run, loss: float) -> None:
            time.sleep(0.1 if run.step > 10 else 0)

    recipe["train"] |= {"max_steps": 20, "save_steps": 10}
    monkeypatch.setattr(checkpoints, "fill_model", full)
    with pytest.raises(DiskFullError, match="step-000010 could not be written"):
        go(recipe, tmp_path / "out", callbacks=[Slow()])
    assert len(read_metrics(tmp_path / "out")) < 15
    assert not Checkpoints(tmp_path / "out").all()


def test_stacked_adapters_are_refused() -> None:
    stacked = Model(name="folder", adapter="stack", lora={"r": 2})
    with pytest.raises(RecipeError, match=r"train.async_save: .*leave async_save out"):
        check_saving(stacked, Train(async_save=True))
    check_saving(stacked, Train())
