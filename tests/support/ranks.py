"""Work on several ranks of gloo: processes that are forked, so that nothing is imported again."""

from __future__ import annotations

import faulthandler
import gc
import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState, PartialState

from support import forked


def on_ranks(
    ranks: int, work: Callable[..., Any], *given: Any, nodes: int = 1, seconds: float = 240
) -> list[Any]:
    """What `work` returns on each rank; `AssertionError` with a rank's own traceback where it raises."""
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe(duplex=False) for _ in range(ranks)]
    port = _free_port()
    processes = [
        context.Process(
            target=_rank, args=(rank, ranks, nodes, port, pipes[rank][1], seconds, work, given)
        )
        for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    try:
        found = [
            pipe.recv() if pipe.poll(seconds) else ("raised", "it did not end") for pipe, _ in pipes
        ]
    finally:
        for process in processes:
            process.join(5)
            process.kill()
    wrong = [f"rank {rank}: {told}" for rank, (how, told) in enumerate(found) if how == "raised"]
    assert not wrong, "\n".join(wrong)
    return [value for _, value in found]


def train_on_two_ranks(recipe: Path, out: Path) -> None:
    """`onestage train` on two ranks."""
    on_ranks(2, _train, recipe, out)


def _train(recipe: Path, out: Path) -> None:
    from onestage import train

    train(recipe, out=out)


def train_under_torchrun(recipe: Path, out: Path) -> None:
    """The same as people type it: torchrun and the two processes that it starts (forked, see there)."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-port", "0", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    command += ["-m", "onestage", "train", str(recipe), "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop(
        "ACCELERATE_USE_CPU", None
    )  # without it, these were two runs of one process each
    done = forked.run(command, env=environment, timeout=240)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]


def _rank(
    rank: int,
    ranks: int,
    nodes: int,
    port: int,
    pipe: Any,
    seconds: float,
    work: Callable[..., Any],
    given: tuple[Any, ...],
) -> None:
    local = ranks // nodes
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank % local),
        WORLD_SIZE=str(ranks),
        LOCAL_WORLD_SIZE=str(local),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        OMP_NUM_THREADS="1",  # as launchers set it; accelerate warns where nobody has
    )
    for state in (AcceleratorState, PartialState, GradientState):
        state._shared_state.clear()
    torch.set_num_threads(1)
    gc.freeze()  # what was there before the fork is no garbage here, and takes long to look through
    faulthandler.dump_traceback_later(max(seconds - 2, 1))
    try:
        pipe.send(("done", work(*given)))
    except BaseException:
        pipe.send(("raised", traceback.format_exc()))
    finally:
        pipe.close()
        os._exit(0)


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])
