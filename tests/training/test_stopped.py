"""What stops one rank stops all, in the words of that rank, wherever it stops."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from support.ranks import on_ranks
from torch import distributed

from onestage.runfolder import OutputError, silent
from onestage.training import lock, stopped
from onestage.training.callbacks import Callback
from onestage.training.checkpoints import Checkpoints
from onestage.training.lock import held
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe
from onestage.training.saving import Saving
from onestage.training.stopped import RankError, among_ranks

Make = Callable[..., dict[str, Any]]
PLUGIN = "from onestage.objectives.sft import SFT\n\n\nclass Mine(SFT):\n    pass\n"


class Breaks(Callback):
    def begin(self, run: Any) -> None:
        raise ValueError("the tracker of the main rank broke")


def go(recipe: dict[str, Any], out: Path, **how: Any) -> None:
    carry_out(parse_recipe(recipe), out, say=silent, self_check=False, **how)


def test_each_rank_stops_in_the_words_of_the_one_that_cannot_go_on(
    recipe_of: Make, model_folder: Path, tmp_path: Path
) -> None:
    """A model that one node lacks; a plug-in that has changed and a folder that is in use, which the
    main rank alone finds out; a callback, which it alone has, when all have long begun."""
    recipe = recipe_of("demonstration", objective="sft", train__max_steps=2)
    recipe["train"] |= {"save_steps": 1}
    plugged = recipe | {"objective": f"{tmp_path / 'mine.py'}:Mine"}
    (tmp_path / "mine.py").write_text(PLUGIN)
    go(plugged, tmp_path / "plugged")
    (tmp_path / "mine.py").write_text(PLUGIN + "# another one\n")
    (tmp_path / "node0").symlink_to(tmp_path)
    (tmp_path / "node1").mkdir()
    (tmp_path / "model").symlink_to(model_folder)

    def failing(case: str) -> None:
        rank = os.environ["RANK"]
        if case == "plug-in":
            go(
                plugged | {"train": recipe["train"] | {"max_steps": 2}},
                tmp_path / "plugged",
                resume=True,
            )
        elif case == "model":
            os.chdir(tmp_path / f"node{rank}")
            go(recipe | {"model": {"name": "./model"}}, tmp_path / "out")
        elif case == "folder":
            go(recipe, tmp_path / "used")
        else:
            go(recipe, tmp_path / "out", callbacks=[Breaks()])

    def work() -> list[str]:
        found = []
        for case in ("plug-in", "model", "folder", "callback"):
            began = time.monotonic()
            with pytest.raises((ValueError, OSError, RankError)) as error:
                failing(case)
            assert time.monotonic() - began < 20
            found.append(f"{error.type.__name__}: {error.value}")
        return found

    with held(tmp_path / "used", silent):
        main, other = on_ranks(2, work, seconds=60)
    said = [
        "was begun with another Mine",
        "model",
        "in use by",
        "the tracker of the main rank broke",
    ]
    for words, mine, theirs, first in zip(said, main, other, (0, 1, 0, 0), strict=True):
        one, rest = (mine, theirs) if first == 0 else (theirs, mine)
        assert words in one
        assert not one.startswith("RankError")
        told = one.partition(": ")[2]
        assert rest.startswith(
            f"RankError: rank {1 - first} stops here, since rank {first} has stopped"
        )
        assert rest.endswith(" ".join(told.split()))


def test_parts_of_checkpoints_need_one_disk(
    recipe_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of("demonstration", objective="sft", distributed={"sharding": "full"})
    monkeypatch.setattr(lock, "SEEN_WITHIN", 0.1)

    def work() -> str:
        (node := tmp_path / f"node{os.environ['RANK']}").mkdir()
        os.chdir(node)
        with pytest.raises((OutputError, RankError), match="not the main process's") as error:
            go(recipe, Path("out"))
        return error.type.__name__

    assert on_ranks(2, work, nodes=2, seconds=30) == ["RankError", "OutputError"]


def test_a_rank_that_stops_in_the_middle_is_heard_where_others_wait() -> None:
    """Not at a place where ranks wait for each other on purpose: in a message of torch's own."""

    def fails() -> None:
        with among_ranks(accelerator := Accelerator(cpu=True)):
            if accelerator.process_index == 1:
                raise ValueError("no room on\nthe disk of node 1")
            distributed.all_reduce(torch.ones(1))

    def work() -> str:
        with pytest.raises((ValueError, RankError)) as error:
            fails()
        return str(error.value)

    for ranks in (2, 3):
        main, other, *rest = on_ranks(ranks, work, seconds=30)
        assert other == "no room on\nthe disk of node 1"
        heard = "stops here, since rank 1 has stopped: no room on the disk of node 1"
        assert main == f"rank 0 {heard}"
        assert rest == [f"rank 2 {heard}"] * (ranks - 2)


def test_a_rank_that_waits_for_ever_is_ended(capfd: pytest.CaptureFixture[str]) -> None:
    """As on a card, whose messages do not notice that the other end is gone."""

    def work() -> list[int]:
        ended: list[int] = []
        stopped.EVERY, stopped.GRACE = 0.05, 0.2
        accelerator, end = Accelerator(cpu=True), os._exit
        os._exit = ended.append  # type: ignore[assignment]
        try:
            with among_ranks(accelerator):
                if accelerator.is_main_process:
                    raise ValueError("the main one broke")
                time.sleep(1)
        except ValueError:
            time.sleep(1)
        finally:
            os._exit = end
        return ended

    assert on_ranks(2, work, seconds=30) == [[], [1]]
    assert (
        "rank 1 stops here, since rank 0 has stopped: the main one broke" in capfd.readouterr().err
    )


def test_what_only_looks_as_if_another_rank_had_stopped_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left: list[Any] = []
    told = {"heard": lambda: "", "close": lambda: None}
    nothing = SimpleNamespace(**told, leave_unless_heard=lambda error: left.append(error) or "")
    monkeypatch.setattr(stopped, "Words", lambda accelerator: nothing)
    ranks: Any = SimpleNamespace(num_processes=2, process_index=1)
    with (
        pytest.raises(RankError, match=r"\(here: the judge: Timed out\)"),
        among_ranks(ranks),
    ):
        raise RuntimeError("the judge:\nTimed out")
    assert [str(error) for error in left] == ["the judge:\nTimed out"]


def test_a_rank_whose_own_call_times_out_is_heard() -> None:
    """It looks as if another had stopped; the others, who wait, are told all the same."""
    stopped.WITHIN = 0.2

    def fails() -> None:
        with among_ranks(accelerator := Accelerator(cpu=True)):
            if accelerator.process_index == 1:
                raise RuntimeError("the judge: Timed out")
            time.sleep(3)
            distributed.all_reduce(torch.ones(1))

    def work() -> str:
        with pytest.raises(RankError) as error:
            fails()
        return str(error.value)

    main, other = on_ranks(2, work, seconds=30)
    assert other.endswith("(here: the judge: Timed out)")
    assert main == "rank 0 stops here, since rank 1 has stopped: the judge: Timed out"


def test_a_checkpoint_is_finished_where_another_rank_stops(
    recipe_of: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It takes longer than a rank may go on for otherwise, and the rank stops by itself after it."""
    recipe = recipe_of("demonstration", objective="sft", train__max_steps=4)
    recipe["train"] |= {"save_steps": 2, "async_save": True}

    def work() -> tuple[str, list[int]]:
        ended: list[int] = []
        stopped.EVERY, stopped.GRACE = 0.05, 1.0
        begin, end, looks = Saving.begin, os._exit, [0]

        def slowly(saving: Saving, write: Callable[[], None]) -> None:
            begin(saving, lambda: time.sleep(1.5) or write())

        def breaks(saving: Saving) -> None:
            looks[0] += 1
            if os.environ["RANK"] == "1" and looks[0] == 3:
                raise ValueError("the disk of node 1 broke")

        Saving.begin, Saving.look = slowly, breaks  # type: ignore[method-assign]
        os._exit = ended.append  # type: ignore[assignment]
        try:
            with pytest.raises((ValueError, RankError)) as error:
                go(recipe, tmp_path / "out")
        finally:
            os._exit = end
        return str(error.value), ended

    main, other = on_ranks(2, work, seconds=30)
    assert other == ("the disk of node 1 broke", [])
    assert main == (f"rank 0 stops here, since rank 1 has stopped: {other[0]}", [])
    assert "what is being written here is finished first" in capfd.readouterr().err
    assert Checkpoints(tmp_path / "out").newest().name == "step-000002"
    go(recipe, tmp_path / "out", resume=True)


def test_a_checkpoint_that_goes_wrong_does_not_take_the_place_of_what_the_run_failed_of() -> None:
    saving, said = Saving(), list[str]()

    def full() -> None:
        raise OSError("no room")

    def fails() -> None:
        with saving.to_the_end(said.append):
            saving.begin(full)
            raise ValueError("the run")

    with pytest.raises(ValueError, match="the run"):
        fails()
    assert said == ["the checkpoint under way is discarded, the one before is whole (no room)"]


def test_a_lock_that_a_killed_run_left_is_not_the_main_process_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "SEEN_WITHIN", 0.1)
    mine, other = tmp_path / "mine", tmp_path / "other"
    other.mkdir()
    (other / ".lock").write_text("process 7 on node1\nrun 0123456789abcdef\n")
    with held(mine, silent):
        holder = lock.holder_of(mine)
        lock.require_seen(mine, holder)
        with pytest.raises(OutputError, match="not the main process's"):
            lock.require_seen(other, holder)
        with (
            pytest.raises(OutputError, match=r"in use by process \d+ on [^,]+; wait"),
            held(mine, silent),
        ):
            pass
