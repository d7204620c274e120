"""What is seen of a run: in place on a terminal, line by line elsewhere, and from its folder alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.tiny import ROOT, write_recipe, write_rows
from typer.testing import CliRunner

from onestage.cli import app
from onestage.cli import watch as watching
from onestage.cli._board import Board, plain
from onestage.cli._screen import line_of
from onestage.report.reading import Reader
from onestage.report.trained import read_run
from onestage.runfolder import RunFolder, json_line
from onestage.runfolder.following import Growing, standing

Make = Callable[..., dict[str, Any]]
LINE = {"loss": 0.5, "tokens_per_second": 100.0, "pairs/loss": 0.6, "pairs/tokens": 50}


def call(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "SECOND", 0.02)


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """The error stream on a pseudo-terminal, and what was written to it."""
    ours, theirs = os.openpty()
    shown: list[bytes] = []

    def read() -> None:
        while True:
            try:
                shown.append(os.read(ours, 4096))
            except OSError:  # closed
                return

    reader = threading.Thread(target=read)
    reader.start()
    with monkeypatch.context() as patch:
        patch.setenv("TERM", "xterm")
        patch.setenv("COLUMNS", "120")
        with os.fdopen(theirs, "w") as stream:
            patch.setattr(sys, "stderr", stream)
            yield shown
    reader.join(10)
    os.close(ours)


@pytest.fixture
def probed(recipe_of: Make, tmp_path: Path) -> Path:
    """A recipe that probes retention, holds a bound and evaluates."""
    text = [{"text": f"Roses are {word} and the sea is {word}."} for word in "red blue old".split()]
    file = str(write_rows(tmp_path / "known.jsonl", text * 8))
    recipe = recipe_of("demonstration", "pair", train__max_steps=2)
    recipe["probe"] = {"steps": 1, "retention": [{"name": "known", "path": file}]}
    world = {"name": "world", "path": file}
    recipe["keep"] = [{"what": "kl", "at_most": 5.0, "of": world, "by": "step", "steps": 1}]
    return write_recipe(tmp_path / "r.yaml", recipe)


def test_the_line_before_the_first_step_tells_the_suites_beside_the_loss() -> None:
    line = {"step": 0, "eval/loss": 1.25, "suite/ifeval/mean": 0.5, "suite/ifeval/items": 8.0}
    assert line_of(line, 10, None) == "step 0/10  eval loss 1.2500, ifeval mean 0.5"
    assert line_of({"step": 5, "eval/loss": None}, None, None) == "step 5/?  eval loss not a number"


def test_a_terminal_shows_streams_what_is_kept_and_the_bounds(
    probed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with terminal(monkeypatch) as shown:
        app(["train", str(probed), "--out", str(out)], standalone_mode=False)
    text = b"".join(shown).decode()
    last = text[text.rindex("step 2/2") :]
    assert "tokens/s" in last
    assert "left 0:00:00" in last
    for stream in ("demonstrations", "pairs"):
        assert stream in last
    assert "known loss" in last
    assert "world 0.00" in last
    assert "slack" in last
    assert "\x1b[?25h" in text[text.rindex("\x1b[?25l") :]  # the cursor is shown again

    # The same folder, watched: on a terminal what train shows, elsewhere a line for each.
    with terminal(monkeypatch) as shown:
        app(["watch", str(out)], standalone_mode=False)
    again = b"".join(shown).decode()
    for words in ("step 2/2", "pairs", "known loss", "slack"):
        assert words in again
    found = call("watch", out)
    assert found.exit_code == 0
    assert "step 2/2  loss" in found.output
    assert "step 2/2  known KL" in found.output
    assert "finished: its model is saved" in found.output
    assert f"next: onestage report {out}" in found.output

    stopped = tmp_path / "stopped"  # as one that was stopped by a signal leaves it
    shutil.copytree(out, stopped)
    shutil.rmtree(stopped / "model")
    RunFolder(stopped, resume=True).saved(None)
    before = sorted(stopped.rglob("*"))
    found = call("watch", stopped)
    assert found.exit_code == 3
    assert "interrupted: it ended before its last step" in found.output
    assert f"onestage train {stopped / 'recipe.yaml'} --out {stopped} --resume" in found.output
    assert sorted(stopped.rglob("*")) == before


def test_a_run_that_was_killed_is_interrupted(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from onestage.training.lock import held\n"
        "with held(Path(sys.argv[1]), print): print('held', flush=True); time.sleep(60)"
    )
    told = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=told) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        (tmp_path / "run" / "metrics.jsonl").write_text(
            json_line({"step": 3, **LINE}) + '{"step": 4'
        )
        assert standing(tmp_path / "run", 600).state == "running"
        process.send_signal(signal.SIGKILL)
        os.waitid(
            os.P_PID, process.pid, os.WEXITED | os.WNOWAIT
        )  # it has ended, and is still listed
        assert standing(tmp_path / "run", 600).state == "interrupted"
    found = call("watch", tmp_path / "run")
    assert found.exit_code == 3
    assert "step 3/?  loss 0.5000  100 tokens/s" in found.output
    assert f"interrupted: process {process.pid} was killed" in found.output


def test_a_lock_of_another_process_of_the_same_number_is_nobody_s(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    lock.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
    assert standing(tmp_path, 600).state == "running"
    os.utime(lock, (1e9, 1e9))  # long before this process began
    assert standing(tmp_path, 600).state == "interrupted"


def test_a_run_of_another_machine_that_says_nothing_is_stale(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("process 5 on elsewhere\n")
    (tmp_path / "metrics.jsonl").write_text(json_line({"step": 1, **LINE}))
    assert standing(tmp_path, 600).state == "running"
    long_ago = time.time() - 700
    for file in tmp_path.iterdir():
        os.utime(file, (long_ago, long_ago))
    found = call("watch", tmp_path)
    assert found.exit_code == 3
    assert "stale: process 5 on elsewhere cannot be seen from here, and wrote nothing" in " ".join(
        found.output.split()
    )
    assert standing(tmp_path, 1000).state == "running"


def test_a_growing_log_is_followed_to_the_end_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, log = tmp_path / "run", tmp_path / "run" / "metrics.jsonl"
    run.mkdir()
    lock = run / ".lock"
    lock.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
    (run / "manifest.json").write_text(json.dumps({"steps": 40}))
    lines = [json_line({"step": n, **LINE, "tokens": 50 * n}) for n in range(1, 41)]
    log.write_text("".join(lines[:30]) + "not json\n" + lines[30][:7])

    def more(text: str) -> None:
        with log.open("a") as file:
            file.write(text)

    def go_on() -> None:
        draft = run / "draft"  # a run that goes on drops what it will measure again
        draft.write_text("".join(lines[:35]))
        os.replace(draft, log)

    def end() -> None:
        more("".join(lines[35:]))
        (run / "model").mkdir()
        lock.unlink()

    between = iter([lambda: more(lines[30][7:]), go_on, end])
    monkeypatch.setattr(watching.time, "sleep", lambda seconds: next(between)())
    found = call("watch", run)
    told = [line for line in found.output.splitlines() if line.startswith("step")]
    steps = [int(line.split("/")[0].removeprefix("step ")) for line in told]
    assert steps == [*range(21, 32), *range(36, 41)]
    assert "20 earlier lines are in" in found.output
    assert "went on from a checkpoint before step 31" in found.output
    assert "1 damaged lines" in found.output
    assert (
        told[0] == "step 21/40  loss 0.5000  100 tokens/s  10 s left"
    )  # 19 steps of half a second
    assert "finished" in found.output


def test_a_finished_run_whose_model_was_moved_is_finished(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.begin({}, {"steps": 3})
    run.log({"step": 3, **LINE})
    assert call("watch", run.folder).exit_code == 3  # a killed one looks like this
    run.saved(3)
    found = call("watch", run.folder)
    assert found.exit_code == 0
    said = " ".join(found.output.split())
    assert "finished: its model is saved; model/ has been moved or removed since" in said
    assert "sample" not in said  # of a model that is not there
    reader = Reader()
    assert read_run(run.folder, "run", reader).done
    assert not reader.troubles
    # One that goes on, for more steps, is not finished before it is, whatever lies in model/.
    (run.folder / "model").mkdir()
    run.saved(None)
    assert standing(run.folder, 600).state == "interrupted"


def test_the_last_lines_of_a_stage_are_told_when_the_next_has_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, first, second = tmp_path / "run", tmp_path / "run" / "1-sft", tmp_path / "run" / "2-dpo"
    for stage in (first, second):
        stage.mkdir(parents=True)
        (stage / "manifest.json").write_text(json.dumps({"steps": 2}))
    (second / "manifest.json").rename(run / "later.json")
    (run / ".lock").write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
    stages = [{"folder": first.name}, {"folder": second.name}]
    (run / "stages.json").write_text(json.dumps(stages))
    lines = [json_line({"step": n, **LINE, "loss": n / 8}) for n in (1, 2)]
    (first / "metrics.jsonl").write_text(lines[0])

    def go_on() -> None:  # all of this between two looks
        (first / "metrics.jsonl").write_text("".join(lines) + "not json\n")
        (run / "later.json").rename(second / "manifest.json")
        (second / "metrics.jsonl").write_text(lines[0])

    def end() -> None:
        (run / "model").mkdir()
        (run / ".lock").unlink()

    between = iter([go_on, end])
    monkeypatch.setattr(watching.time, "sleep", lambda seconds: next(between)())
    found = call("watch", run)
    told = [
        line.split("  ")[:2] for line in found.output.splitlines() if line[:3] in ("sta", "ste")
    ]
    one, two = ["step 1/2", "loss 0.1250"], ["step 2/2", "loss 0.2500"]
    assert told == [["stage 1-sft"], one, two, ["stage 2-dpo"], one]
    assert "1 damaged lines" in found.output


@pytest.mark.parametrize(
    ("made", "says"),
    [((), "is no folder"), (("run",), "holds no run"), (("run", "run/cells"), "is a study")],
)
def test_what_is_no_run_is_one_line(made: tuple[str, ...], says: str, tmp_path: Path) -> None:
    for name in made:
        (tmp_path / name).mkdir()
    found = call("watch", tmp_path / "run")
    assert found.exit_code == 1
    assert says in " ".join(found.output.split())


def test_what_a_model_wrote_cannot_move_the_cursor() -> None:
    board = Board(10)
    answers = ["\x1b[2Jgone\r\n\tand \u202eon"]
    board.show([{"step": 1, "stream": "sums", "prompt": "2+2", "completions": answers}])
    assert plain(answers[0]) == "[2Jgone and on"
    assert board.sample is not None


def test_half_a_line_is_read_when_it_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    growing = Growing(file)
    assert growing.new() == ([], False)
    file.write_text('{"step": 1}\n{"st')
    assert growing.new() == ([{"step": 1}], False)
    assert growing.new() == ([], False)
    with file.open("a") as more:
        more.write('ep": 2}\n')
    assert growing.new() == ([{"step": 2}], False)
