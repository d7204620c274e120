"""The pool: an answer that hangs or crashes costs itself and nothing else, and nobody stays behind."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import psutil
import pytest
from support.misbehaving import Misbehaving

from onestage.rollout.rewards import PLUGINS, Answer, Failure
from onestage.rollout.rewards import _pool as pools
from onestage.rollout.rewards._checker import Checker
from onestage.rollout.rewards._pool import Pool


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with contextlib.closing(Pool(workers=2)) as made:
        yield made


def answers(*texts: str) -> list[Answer]:
    return [Answer("p", text) for text in texts]


def judged(pool: Pool, *texts: str, deadline: float = 20.0) -> list[float | Failure]:
    return pool.judge(Misbehaving(deadline=deadline), answers(*texts))


def sorts(outcomes: list[float | Failure]) -> list[float | str]:
    return [o.sort if isinstance(o, Failure) else o for o in outcomes]


def test_rewards_come_back_in_order(pool: Pool) -> None:
    values = [float(i) / 7 for i in range(500)]
    assert judged(pool, *map(repr, values)) == values
    assert judged(pool) == []


def test_workers_that_are_made_ready_ahead_judge_as_others_do() -> None:
    with contextlib.closing(Pool(workers=2)) as fresh:
        fresh.begin(Misbehaving())
        first = [worker.process.pid for worker in fresh.workers]
        assert judged(fresh, *map(repr, range(20))) == [*range(20)]
        assert judged(fresh, "7") == [7]
        assert [worker.process.pid for worker in fresh.workers] == first


def test_what_keeps_a_checker_from_being_ready_is_said_where_it_is_to_judge() -> None:
    with contextlib.closing(Pool(workers=1)) as fresh:
        fresh.begin(Misbehaving(ready="refused"))
        assert judged(fresh, "7") == [7]
        with pytest.raises(ValueError, match="no such thing"):
            fresh.judge(Misbehaving(ready="refused"), answers("7"))


@pytest.mark.parametrize("deed", ["sleep", "compute"])
def test_an_overrun_costs_only_its_own_answer(pool: Pool, deed: str) -> None:
    texts = ["1", "2", deed, "3", *["4"] * 20]
    outcomes = judged(pool, *texts, deadline=0.4)
    assert outcomes[2] == Failure("deadline", "took longer than 0.4 s")
    assert outcomes[:2] + outcomes[3:] == [1.0, 2.0, 3.0, *[4.0] * 20]


def test_the_deadline_is_an_answers_own(pool: Pool) -> None:
    """Neither the answers before it nor the start of a worker count."""
    with contextlib.closing(Pool(workers=1)) as fresh:
        slow = Misbehaving(deadline=0.3, ready="slow")
        assert fresh.judge(slow, answers("1")) == [1.0]
    started = time.monotonic()
    assert sorts(judged(pool, "sleep", "sleep", "1", deadline=0.3)) == ["deadline", "deadline", 1.0]
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("deed", "reason"),
    [
        ("segfault", "SIGSEGV"),
        ("exit", "code 7"),
        ("kill", "SIGKILL"),
        ("memory", "out of memory"),
    ],
)
def test_a_crash_costs_only_its_own_answer(pool: Pool, deed: str, reason: str) -> None:
    outcomes = judged(pool, "1", deed, "2", deed, "3")
    assert sorts(outcomes) == [1.0, "crash", 2.0, "crash", 3.0]
    assert isinstance(outcomes[1], Failure)
    assert reason in outcomes[1].reason


@pytest.mark.parametrize(
    ("deed", "reason"),
    [
        ("zero", "ZeroDivisionError: division by zero"),
        ("recursion", "RecursionError: maximum recursion depth exceeded"),
        ("sys.exit", "SystemExit: "),
        ("not a number", "ValueError: could not convert string to float: 'not a number'"),
        ("odd", "Odd: (its message cannot be shown)"),
    ],
)
def test_an_exception_is_told(pool: Pool, deed: str, reason: str) -> None:
    outcome, after = judged(pool, deed, "1")
    assert isinstance(outcome, Failure)
    assert outcome.sort == "raised"
    assert outcome.reason.startswith(reason)
    assert after == 1.0


def test_only_finite_numbers_are_rewards(pool: Pool) -> None:
    outcomes = judged(pool, "none", "nan", "inf", "text", "complex", "huge", "true", "int")
    assert sorts(outcomes) == ["value"] * 6 + [1.0, 3.0]


def test_what_a_checker_prints_or_reads_is_not_the_pools(pool: Pool) -> None:
    assert judged(pool, "print", "input", "print", "1") == [0.25, 0.0, 0.25, 1.0]


def test_workers_are_light_apart_and_kept(pool: Pool) -> None:
    pids = set(judged(pool, *["pid"] * 40))
    assert len(pids) <= 2
    assert os.getpid() not in pids
    assert pids >= set(judged(pool, *["pid"] * 40))
    assert judged(pool, "modules") == [0.0]


def test_memory_is_limited_by_an_option() -> None:
    with contextlib.closing(Pool(workers=1, memory_mb=300)) as small:
        assert sorts(judged(small, "memory", "1")) == ["crash", 1.0]
        worker = psutil.Process(small.workers[0].process.pid)
        if sys.platform == "linux":
            assert worker.rlimit(psutil.RLIMIT_AS) == (300 << 20, 300 << 20)


def test_no_process_is_left() -> None:
    with contextlib.closing(Pool(workers=2)) as made:
        judged(made, *["sleep", "exit", "segfault", "1"] * 2, deadline=0.2)
        children = [worker.process.pid for worker in made.workers]
        assert all(map(psutil.pid_exists, children))
    assert not any(map(psutil.pid_exists, children))
    mine = psutil.Process().children(recursive=True)
    assert not [child for child in mine if child.status() == psutil.STATUS_ZOMBIE]
    assert judged(made, "1") == [1.0]  # closed is not spoilt
    made.close()


def test_what_a_checker_started_ends_with_it(pool: Pool, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    assert sorts(judged(pool, f"child {file}", deadline=1.0)) == ["deadline"]
    child = int(file.read_text())
    assert _gone(child)


@pytest.mark.parametrize("deed", ["sleep", "compute"])
def test_workers_die_with_their_parent(tmp_path: Path, deed: str) -> None:
    """A parent that is killed cannot clean up; also a worker that holds the interpreter's lock ends."""
    program = (
        "import sys, threading; from support.misbehaving import Misbehaving\n"
        "from onestage.rollout.rewards import Answer, _pool as pool\n"
        "p = pool.Pool(workers=1); c = Misbehaving(deadline=1.5)\n"
        "p.judge(c, [Answer('', '1')]); print(p.workers[0].process.pid, flush=True)\n"
        f"p.judge(c, [Answer('', {deed!r})])\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    time.sleep(0.3)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert _gone(worker, patience=10)


def _gone(pid: int, patience: float = 5.0) -> bool:
    until = time.monotonic() + patience
    while time.monotonic() < until:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True  # killed; whoever inherited it has not looked yet
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize(
    ("ready", "message"),
    [
        ("refused", "^no such thing$"),
        ("broken", "KeyError: 'k'"),
        ("dies", "workers end before they judge anything: the last one ended with code 1"),
    ],
)
def test_a_checker_that_cannot_be_set_up_is_one_error(pool: Pool, ready: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pool.judge(Misbehaving(ready=ready), answers("1", "2"))
    with pytest.raises(ValueError, match=message):
        pool.set_up(Misbehaving(ready=ready))
    pool.set_up(Misbehaving())
    assert judged(pool, "1") == [1.0]


def test_a_set_up_without_end_is_an_error(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "SET_UP_SECONDS", 0.1)
    with pytest.raises(ValueError, match=r"not set up within 0\.1 s"):
        pool.judge(Misbehaving(ready="slow"), answers("1"))


def test_facts_of_any_mapping_travel_and_others_are_refused(pool: Pool) -> None:
    facts = MappingProxyType({"nums": [1]})
    assert pool.judge(Misbehaving(), [Answer("p", "2", facts)]) == [2.0]
    with pytest.raises(ValueError, match="cannot be sent to a worker"):
        pool.judge(Misbehaving(), [Answer("p", "2", {"f": lambda: 1})])

    @dataclass(frozen=True)
    class Local(Checker):
        def judge(self, answer: Answer) -> float:
            return 1.0

    with pytest.raises(ValueError, match="cannot be sent to a worker"):
        pool.judge(Local(), answers("1"))


def test_long_answers_travel(pool: Pool) -> None:
    outcomes = judged(pool, "1" * 2_000_000, "5", " " * 3_000_000 + "7")
    assert sorts(outcomes) == ["value", 5.0, 7.0]


def test_a_worker_that_died_between_calls_is_replaced(pool: Pool) -> None:
    judged(pool, "1")
    for worker in pool.workers:
        worker.process.kill()
        worker.process.wait()
    assert judged(pool, *["1"] * 10) == [1.0] * 10


def test_the_shared_pool_is_one_and_starts_again() -> None:
    checker = Misbehaving()
    assert checker(answers("1", "2")) == [1.0, 2.0]
    assert len(pools.shared().workers) <= pools.WORKERS == 2
    checker.close()
    assert pools.shared().workers == []
    assert checker(answers("3")) == [3.0]
    checker.close()


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="deadline must be positive and finite, got 0"):
        Misbehaving(deadline=0)
    with pytest.raises(ValueError, match="one worker or more, got 0"):
        Pool(workers=0)
    with pytest.raises(ValueError, match="memory_mb"):
        Pool(memory_mb=-1)


SHORT = """
from dataclasses import dataclass

from onestage.rollout.rewards import Checker


@dataclass(frozen=True)
class Short(Checker):
    def judge(self, answer):
        return 1 / len(answer.completion)
"""


@pytest.mark.parametrize("name", ["./short.py:Short", "beside_the_recipe.short:Short"])
def test_a_stranger_s_checker_is_found_by_its_process(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file, or a package beside the recipe: neither can be imported by a fresh interpreter."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.py").write_text(SHORT)
    package = tmp_path / "beside_the_recipe"
    package.mkdir()
    (package / "short.py").write_text(SHORT)
    with contextlib.closing(Pool(workers=1)) as fresh:
        assert fresh.judge(PLUGINS.make(name), answers("ab", "abcd")) == [0.5, 0.25]
