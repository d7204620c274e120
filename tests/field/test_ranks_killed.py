"""A run on two processes that is killed goes on to what it comes to when it is left alone."""

from __future__ import annotations

import gc
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState

from bench.faults.runs import digest
from onestage.runfolder import read_metrics, silent
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe

RANKS = 2
SECONDS = 60


def begun(recipe: dict[str, Any], out: Path, *, resume: bool) -> list[int]:
    """The run's processes, forked, so that nothing is imported again."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    found = []
    for rank in range(RANKS):
        child = os.fork()
        if not child:
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": RANKS, "MASTER_PORT": port}
            os.environ.update({name: str(value) for name, value in place.items()})
            os.environ["MASTER_ADDR"] = "127.0.0.1"
            os.environ["OMP_NUM_THREADS"] = "1"
            for state in (AcceleratorState, PartialState, GradientState):
                state._shared_state.clear()
            torch.set_num_threads(1)
            gc.freeze()
            try:
                carry_out(parse_recipe(recipe), out, resume=resume, say=silent, self_check=False)
                os._exit(0)
            except BaseException:
                os._exit(1)
        found.append(child)
    return found


def ended(children: list[int], *, until: Callable[[], bool] | None = None) -> list[int]:
    """How they ended; all are killed when `until` says so."""
    late, status = time.monotonic() + SECONDS, dict[int, int]()
    while len(status) < len(children):
        for child in children:
            if child not in status:
                number, how = os.waitpid(child, os.WNOHANG)
                status |= {child: how} if number else {}
        if time.monotonic() > late or (until and until()):
            for child in set(children) - status.keys():
                os.kill(child, signal.SIGKILL)
            until = None
        time.sleep(0.002)
    return [status[child] for child in children]


def test_a_run_on_two_processes_is_killed_and_goes_on_bit_for_bit(
    recipe_of: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    kinds = ("demonstration", "pair")
    recipe = recipe_of(*kinds, objective={"demonstration": "sft", "pair": "dpo"})
    recipe["schedule"] = "maxright"
    recipe["model"]["lora"] = {"r": 2, "dropout": 0.1}
    recipe["train"] |= {"max_steps": 6, "save_steps": 2, "batch_size": 4, "tokens_per_row": 128}
    recipe["train"]["logging_steps"] = 3
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert ended(begun(recipe, whole, resume=False)) == [0, 0]
    saved = out / "checkpoints" / "step-000002"
    killed = ended(begun(recipe, out, resume=False), until=saved.is_dir)
    assert set(map(os.WTERMSIG, killed)) == {signal.SIGKILL}
    assert not (out / "model").exists()
    assert ended(begun(recipe, out, resume=True)) == [0, 0]
    assert digest(out) == digest(whole)
    for mine, theirs in zip(read_metrics(out), read_metrics(whole), strict=True):
        mine.pop("tokens_per_second"), theirs.pop("tokens_per_second")
        assert mine == pytest.approx(theirs, rel=1e-7)  # added up in another order
