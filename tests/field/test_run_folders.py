"""What stays of a run that was killed, stopped or is still going, and who may go on with it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.acting import At, crash, quiet
from support.tiny import write_recipe
from typer.testing import CliRunner

from onestage.cli import app
from onestage.report.card import model_of
from onestage.report.reading import Reader
from onestage.runfolder import OutputError, RunFolder, read_json, read_metrics, stages_in
from onestage.studies.run_cell import spent
from onestage.training.checkpoints import Checkpoints
from onestage.training.lock import held
from onestage.training.parts import make_accelerator
from onestage.training.pipeline import carry_out
from onestage.training.recipe import Train, parse_recipe
from onestage.training.same_run import CheckpointError
from onestage.training.train import Trained

Make = Callable[..., dict[str, Any]]


def _run_in(out: Path) -> Path:
    """The run of a folder, or its first stage."""
    return next(iter(stages_in(out)), out)


def test_the_tenth_stage_stands_behind_the_ninth(tmp_path: Path) -> None:
    for number in (10, 9, 1, 11):
        folder = tmp_path / f"{number}-dpo"
        (folder / "model").mkdir(parents=True)
        (folder / "model" / "config.json").write_text("{}")
        line = {"step": 1, "tokens": 5, "eval/loss": number}
        (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    (tmp_path / "2-notes").write_text("somebody's")
    assert [one.name for one in stages_in(tmp_path)] == ["1-dpo", "9-dpo", "10-dpo", "11-dpo"]
    lines = Trained(tmp_path, tmp_path / "model").metrics
    assert [line["eval/loss"] for line in lines] == [1, 9, 10, 11]
    assert spent(tmp_path)["eval/loss"] == 11  # of the last
    assert model_of(tmp_path) == tmp_path / "11-dpo" / "model"
    for value in (None, "not measured"):  # an earlier stage's number is of another model
        line = {"step": 1, "tokens": 5, **({"eval/loss": None} if value is None else {})}
        (tmp_path / "11-dpo" / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        assert "eval/loss" not in spent(tmp_path)
        assert spent(tmp_path)["tokens"] == 20


def test_checkpoints_go_by_number(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    for step in (999_999, 1_000_000, 1_000_001):
        (folder / f"step-{step:06d}").mkdir(parents=True)
    (folder / "step-000002.txt").mkdir()  # somebody's notes
    kept = Checkpoints(tmp_path, keep=2)
    assert [path.name for path in kept.all()] == ["step-999999", "step-1000000", "step-1000001"]
    kept._prune()
    assert [path.name for path in kept.all()] == ["step-1000000", "step-1000001"]


def test_drafts_of_dead_runs_are_cleared_and_what_stepped_aside_goes_back(tmp_path: Path) -> None:
    dead = [
        ".model-abc12345",
        "checkpoints/.step-000003-x_y_z_12",
        "1-sft/checkpoints/.step-1-aaaaaaaa",
    ]
    dead += ["2-dpo/.start-aaaaaaaa", ".model_last-aaaaaaaa-old"]
    aside = {"checkpoints/.step-000002-aaaaaaaa-old": "checkpoints/step-000002"}
    stays = ["model_last", ".git-aaaaaaaa", ".step-notes", "checkpoints/step-000001"]
    for name in (*dead, *aside, *stays):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_text(name)
    files = [tmp_path / ".metrics.jsonl-aaaaaaaa", tmp_path / ".keep_items.json-aaaaaaaa"]
    for file in files:
        file.write_text("")
    said: list[str] = []
    with held(tmp_path, said.append):
        assert not any((tmp_path / name).exists() for name in (*dead, *aside, *files))
        assert all((tmp_path / name / "file").read_text() == name for name in stays)
        assert all((tmp_path / n / "file").read_text() == was for was, n in aside.items())
    assert said == [f"removed 8 unfinished drafts that a killed run left in {tmp_path}"]


HOLD = """
import sys, time
from pathlib import Path
from onestage.training.lock import held
with held(Path(sys.argv[1]), print):
    (Path(sys.argv[1]) / "ready").touch()
    time.sleep(60)
"""


def test_a_second_run_in_a_folder_is_refused_and_a_killed_one_holds_nothing(
    recipe_of: Make, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = subprocess.Popen([sys.executable, "-c", HOLD, str(out)])
    while not (out / "ready").exists():
        time.sleep(0.02)
    (out / ".model-abc12345").mkdir()  # being written
    recipe = parse_recipe(recipe_of("demonstration", objective="sft", train__max_steps=1))
    who = f"in use by process {first.pid} on {socket.gethostname()}"
    for resume in (False, True):
        with pytest.raises(OutputError, match=who):
            carry_out(recipe, out, say=quiet, resume=resume, self_check=False)
    assert (out / ".model-abc12345").is_dir()
    first.kill()
    first.wait()
    carry_out(recipe, out, say=quiet, self_check=False)
    assert (out / "model").is_dir()
    assert not (out / ".model-abc12345").exists()


def test_a_child_that_outlives_its_run_does_not_hold_the_folder(tmp_path: Path) -> None:
    reads, writes = os.pipe()
    with held(tmp_path / "out", quiet):
        child = os.fork()
        if child == 0:
            os.close(writes)
            os.read(reads, 1)  # until the test lets it go
            os._exit(0)
        (tmp_path / "out" / "metrics.jsonl").touch()
    with held(tmp_path / "out", quiet):
        pass
    os.close(writes)
    os.waitpid(child, 0)
    os.close(reads)


def test_two_runs_of_one_process_are_two_runs(tmp_path: Path) -> None:
    with (
        held(tmp_path, quiet),
        pytest.raises(OutputError, match="in use by"),
        held(tmp_path, quiet),
    ):
        pass


def test_processes_that_do_not_see_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would train a whole copy into the one folder. (Of torchrun on the CPU they do see each other:
    `train_under_torchrun`.)"""
    monkeypatch.setenv("WORLD_SIZE", "2")  # of a launcher that accelerate does not know
    with pytest.raises(ValueError, match=r"2 processes .* only this one.*`accelerate launch`"):
        make_accelerator(Train())


@pytest.mark.parametrize(
    "bad", [b'{"step": 2, "lo', b'\xff\xfe{"step": 2}', b"\0" * 9, b"[" * 99999]
)
def test_a_damaged_line_is_lost_alone_and_counted(bad: bytes, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    for step in (1, 2, 3, 4):
        folder.log({"step": step})
        folder.samples(step, [{"prompt": f"{step}"}])
    for file in (folder.metrics, folder.folder / "samples.jsonl"):
        lines = file.read_bytes().split(b"\n")
        file.write_bytes(b"\n".join([lines[0], bad, *lines[2:], b'{"no": "step"}']))
    reader = Reader()
    assert [line.get("step") for line in reader.lines(folder.metrics, "run")] == [1, 3, 4, None]
    assert [trouble.what for trouble in reader.troubles] == [
        "1 of 5 lines of metrics.jsonl cannot be read"
    ]
    assert folder.rewind(3) == {"metrics.jsonl": 2, "samples.jsonl": 2}
    assert [line["step"] for line in read_metrics(folder.folder)] == [1, 3]
    assert folder.rewind(3) == {}


def test_a_file_that_is_damaged_is_named(tmp_path: Path) -> None:
    for bad in (b"{", b"[" * 99999, b"\xff"):
        (tmp_path / "keep_items.json").write_bytes(bad)
        with pytest.raises(ValueError, match=r"keep_items\.json is no JSON"):
            read_json(tmp_path / "keep_items.json")


@pytest.mark.parametrize("stages", [False, True])
def test_killed_before_the_first_checkpoint_it_starts_over_and_says_so(
    stages: bool, recipe_of: Make, tmp_path: Path
) -> None:
    content = recipe_of("demonstration", objective="sft", train__max_steps=2)
    content["model"]["lora"] = {"r": 2}  # its base is written to `start`
    content |= {"stages": [{"name": "a"}]} if stages else {}
    recipe = parse_recipe(content)
    carry_out(recipe, tmp_path / "whole", say=quiet, self_check=False)
    for before in ("after a step", "before any"):
        out = tmp_path / before
        if before == "before any":
            out.mkdir()
            (out / ".lock").touch()
        else:
            with pytest.raises(MemoryError):
                carry_out(recipe, out, say=quiet, callbacks=[At(1, crash)], self_check=False)
            (_run_in(out) / "evaluations.jsonl").write_text('{"step": 0}\n')
        said: list[str] = []
        carry_out(recipe, out, say=said.append, resume=True, self_check=False)
        assert not (_run_in(out) / "evaluations.jsonl").exists()
        assert any("starts over" in line for line in said) or (stages and before == "before any")
        assert [line["step"] for line in read_metrics(out / "1-a" if stages else out)] == [1, 2]
        name = "model/adapter_model.safetensors"
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    with pytest.raises(CheckpointError, match=r"the run is done: its model is|holds stages"):
        carry_out(
            parse_recipe({**content, "stages": None}), out, say=quiet, resume=True, self_check=False
        )


@pytest.mark.parametrize(
    ("act", "code"),
    [
        (lambda run: os.kill(os.getpid(), signal.SIGINT), 130),
        (lambda run: os.kill(os.getpid(), signal.SIGTERM), 143),
        (lambda run: setattr(run, "stop", True), 3),
    ],
)
def test_a_stopped_run_says_where_and_how_to_go_on(
    act: Any, code: int, recipe_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onestage.cli._progress.progress", lambda: At(1, act))
    file = write_recipe(tmp_path / "r.yaml", recipe_of("demonstration", objective="sft"))
    words = ["train", str(file), "--out", str(tmp_path / "out"), "--no-self-check"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == code, done.output
    assert done.output.splitlines()[-1] == "stopped at step 1; go on with --resume"
    assert "model " + str(tmp_path) not in done.output
    again = CliRunner().invoke(app, [*words, "--resume", "--set", "train.logging_steps=3"])
    assert again.exit_code == 0, again.output
    assert any(line.endswith("out/model") for line in again.output.splitlines())


@pytest.mark.parametrize("step", [None, 1])
def test_a_second_ctrl_c_ends_a_run_at_once(
    step: int | None, recipe_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*given: Any, **more: Any) -> Any:
        raise KeyboardInterrupt

    if step is None:  # while the data are read
        monkeypatch.setattr("onestage.training.build._read", interrupt)
    monkeypatch.setattr("onestage.cli._progress.progress", lambda: At(1, interrupt))
    file = write_recipe(tmp_path / "r.yaml", recipe_of("demonstration", objective="sft"))
    words = ["train", str(file), "--out", str(tmp_path / "out"), "--no-self-check"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 130, done.output
    then = "nothing was begun" if step is None else "go on with --resume"
    assert done.output.splitlines()[-1] == f"stopped at once; {then}"
