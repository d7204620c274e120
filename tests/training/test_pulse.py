"""What becomes of a rank that cannot say it: killed, stopped, or on a machine that is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from support.ranks import on_ranks
from torch import distributed

from onestage.training import pulse, stopped
from onestage.training.pulse import Pulse
from onestage.training.stopped import RankError, among_ranks


class Store(dict[str, str]):
    def set(self, key: str, value: str) -> None:
        self[key] = value

    def get(self, key: str) -> Any:  # type: ignore[override]
        while key not in self:
            time.sleep(0.001)
        return self[key]


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Pulse]]:
    """Three ranks' connections, in one process; none is near another."""
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")
    store = Store()
    with ThreadPoolExecutor() as threads:
        made = list(threads.map(lambda rank: Pulse(store, rank, 3, ()), range(3)))
    yield made
    for one in made:
        one.close()


def test_the_rank_behind_hears_of_an_end_of_words_and_of_what_is_over(three: list[Pulse]) -> None:
    assert [one.look(0.01) for one in three] == [""] * 3
    three[0].tell("rank 2 has stopped: no room\u2028")
    three[1].tell()
    assert three[2].told
    three[2].told.close()
    time.sleep(0.01)
    assert three[1].look(1) == "rank 2 has stopped: no room\u2028"
    assert [three[2].look(0.01), three[2].look(0.01)] == ["", ""]
    ended = (
        f"rank 2 has stopped: its process {os.getpid()} on {os.uname().nodename} ended without a"
    )
    assert three[0].look(1).startswith(ended)


def test_a_machine_that_does_not_answer(three: list[Pulse]) -> None:
    class Silent:
        def settimeout(self, seconds: float) -> None: ...
        def close(self) -> None: ...
        def recv(self, most: int) -> bytes:
            raise OSError(pulse.SILENCE[0], "the system has asked for it often enough")

    line: Any = Silent()
    three[1].line = line
    assert three[1].look(0).partition(";")[0].endswith("has not answered for 20 s")
    three[1].line = None


def test_a_neighbour_that_is_stopped_or_killed(three: list[Pulse]) -> None:
    one, other = three[0], subprocess.Popen(["sleep", "60"])
    one.near = {7: [other.pid, pulse._state(other.pid)[1]]}
    one.name = {7: "7 on here"}

    def looks(until: str) -> list[str]:
        while pulse._state(other.pid)[0] not in until:
            time.sleep(0.001)
        return [one.look(0.0001) for _ in range(pulse.SILENT)]

    try:
        other.send_signal(signal.SIGSTOP)
        assert looks("T")[:-1] == [""] * (pulse.SILENT - 1)  # a moment is none
        assert one.look(0).startswith(
            "rank 7 has stopped: its process 7 on here has been stopped (SIGSTOP) for"
        )
        other.send_signal(signal.SIGCONT)
        assert looks("SR") == [""] * pulse.SILENT
        other.kill()
        assert (
            looks("Z")[0]
            .partition(";")[0]
            .endswith("ended without a word (killed, or out of memory)")
        )
    finally:
        other.kill()
        other.wait()
    one.near = {7: [os.getpid(), "another's number by now"]}
    assert "(killed, or out of memory)" in one.look(0)


def test_a_rank_of_which_nothing_is_heard_is_told_to_all(tmp_path: Path) -> None:
    """Rank 1 lives on, without its connections: what others would see were it gone."""
    made: list[Pulse] = []

    def remembered(*given: Any) -> Pulse:
        made.append(Pulse(*given))
        return made[0]

    def fails() -> None:
        stopped.Pulse = remembered  # type: ignore[assignment,misc]
        with among_ranks(accelerator := Accelerator(cpu=True)):
            distributed.all_reduce(torch.ones(1))
            if accelerator.process_index == 1:
                assert made[0].told
                made[0].told.close()
                while not list(tmp_path.iterdir()):
                    time.sleep(0.01)
                time.sleep(0.2)
                raise ValueError("as if it had not")
            while made[0].line:
                time.sleep(0.01)
            if accelerator.is_main_process:  # the last to hear: from rank 2
                (tmp_path / "heard").touch()
            distributed.all_reduce(torch.ones(1))

    def work() -> str:
        stopped.WITHIN = 0.1
        with pytest.raises((ValueError, RankError)) as error:
            fails()
        return str(error.value)

    main, _, last = on_ranks(3, work, seconds=30)
    assert " stops here, since rank 1 has stopped: its process " in last
    assert main.partition("since")[2] == last.partition("since")[2]
