"""Trackers, each read back with its own reader: they hold what the run says. Nothing goes out."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onestage.runfolder import read_metrics
from onestage.training.callbacks.tracker import Tracker, known_as
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe

Make = Callable[..., dict[str, Any]]
Curve = list[tuple[int, float]]


def of_tensorboard(place: Path) -> Curve:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # TensorBoard numbers the files of a process: settings go into a later one, and a test before
    # this one may have had a first.
    file = min(place.rglob("events.out.tfevents.*"), key=lambda file: int(file.suffix[1:]))
    held = EventAccumulator(str(file.parent))
    held.Reload()
    return [(one.step, one.value) for one in held.Scalars("loss")]


def of_wandb(place: Path) -> Curve:
    from wandb.proto import wandb_internal_pb2

    (file,) = place.rglob("run-*.wandb")
    content, at, found = file.read_bytes(), 7, []
    assert content[:4] == b":W&B"
    assert len(content) < 1 << 15  # one block of LevelDB's log: checksum, length, type, record
    while at < len(content):
        (size,) = struct.unpack_from("<H", content, at + 4)
        record = wandb_internal_pb2.Record()
        record.ParseFromString(content[at + 7 : at + 7 + size])
        at += 7 + size
        items = {one.key or one.nested_key[0]: one.value_json for one in record.history.item}
        if "loss" in items:
            found.append((json.loads(items["_step"]), json.loads(items["loss"])))
    return found


def of_trackio(place: Path) -> Curve:
    from trackio.sqlite_storage import SQLiteStorage

    (run,) = SQLiteStorage.get_runs("onestage")
    assert run == "run"
    lines = SQLiteStorage.get_logs("onestage", run)
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


def of_mlflow(place: Path) -> Curve:
    from mlflow import MlflowClient

    client = MlflowClient()
    (experiment,) = client.search_experiments(filter_string="name = 'onestage'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.status, run.info.run_name) == ("FINISHED", "run")
    assert "shown_ once/loss" in run.data.metrics
    return [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, "loss")]


READERS: dict[str, Callable[[Path], Curve]] = {
    "tensorboard": of_tensorboard,
    "wandb": of_wandb,
    "trackio": of_trackio,
    "mlflow": of_mlflow,
}


@pytest.mark.filterwarnings("ignore")  # of these libraries and what they stand on
@pytest.mark.parametrize("name", READERS)
def test_a_tracker_holds_the_metrics(
    name: str, recipe_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in {
        **{"WANDB_MODE": "offline", "WANDB_DIR": tmp_path, "WANDB_SILENT": "true"},
        **{"TRACKIO_DIR": tmp_path / "trackio", "HF_HUB_OFFLINE": "1"},
        **{"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"},
    }.items():
        monkeypatch.setenv(key, str(value))
    monkeypatch.chdir(tmp_path)
    pytest.importorskip(name)
    recipe = recipe_of("demonstration", objective="sft", train__max_steps=2, train__report_to=name)
    recipe["data"][0]["name"] = "shown, once"
    carry_out(parse_recipe(recipe), tmp_path / "run", say=lambda _: None, self_check=False)
    steps = [(line["step"], line["loss"]) for line in read_metrics(tmp_path / "run")]
    found = READERS[name](tmp_path)
    assert [step for step, _ in found] == [1, 2]
    assert [loss for _, loss in found] == pytest.approx([loss for _, loss in steps], rel=1e-6)


def test_a_name_is_one_that_the_tracker_takes() -> None:
    assert (
        known_as("suite/lm_eval/arc_easy/acc,none", "mlflow") == "suite/lm_eval/arc_easy/acc_none"
    )
    assert known_as("probe/cosine/sft/dpo", "mlflow") == "probe/cosine/sft/dpo"
    assert known_as("suite/lm_eval/arc_easy/acc,none", "wandb") == "suite/lm_eval/arc_easy/acc,none"


@pytest.mark.parametrize(
    ("name", "command"),
    [("wandb", "'onestage[wandb]'"), ("tensorboard", "'onestage[trackers]'"), ("aim", "aim")],
)
def test_what_is_not_installed_says_what_to_type(
    name: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", list)
    with pytest.raises(ValueError, match="not installed") as refused:
        Tracker(to=name)
    assert str(refused.value).endswith(f"(installed: none); pip install {command}")
