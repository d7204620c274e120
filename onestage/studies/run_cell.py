"""One cell, done in this process: train what it says, evaluate, leave the results in its folder."""

from __future__ import annotations

import hashlib
import math
import shutil
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from transformers.utils import logging

from onestage.config import first_line
from onestage.data.kept import drop
from onestage.report.trained import up_to_the_kept
from onestage.runfolder import (
    json_line,
    json_lines,
    parts_in,
    read_json,
    silent,
    write_json,
    write_text,
)
from onestage.studies import worlds
from onestage.studies.cells import Cell, within
from onestage.studies.variables import filled
from onestage.studies.worlds import Evaluated, Ground, World
from onestage.training.first_stage import seconds_taken
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe

SHOWN = 8
"""Answers of each metric that are kept as samples."""
WATCHED = ("retention/", "keep/")
OF_ITS_END = ("eval/", *WATCHED)
"""How names of metrics begin that say what a model is after a stage, and not how it was at its start."""


def world_of(given: Mapping[str, Any]) -> World:
    """The world that a table of `name` and options says; `ValueError` where there is none."""
    return worlds.PLUGINS.make(given)


def state_of(folder: Path, cell: Cell) -> str:
    """`waiting`, `done`, `failed` or `damaged`; one that was left running, or is another now, waits.
    `outdated`: done, and judged by another exam than its world holds now. `changed`: done on other files
    than lie there now."""
    if not (folder / "status.json").exists():
        return "waiting"
    try:
        status, told = read_json(folder / "status.json"), read_json(folder / "cell.json")
        if told["digest"] != cell.digest or status["state"] == "running":
            return "waiting"
        if status["state"] == "failed":
            return "failed"
        if not _of_the_same_files(told, cell):
            return "changed"
        whole = status["state"] == "done" and not _spoilt(folder, status)
        if whole and _exam_of(folder, told, cell) != cell.exam:
            return "outdated"
    except (OSError, ValueError, KeyError, TypeError):
        return "damaged"
    return "done" if whole else "damaged"


def done_again(states: Mapping[str, str]) -> Iterator[str]:
    """Which cells are done again though they were done, and why, in words. states: by name."""
    for name in (name for name, state in states.items() if state == "damaged"):
        yield f"{name}: what the cell has found or told of itself is damaged; it is done again"
    if other := sum(state == "changed" for state in states.values()):
        yield (
            f"{other} of {len(states)} cells were done on other data, models or plug-ins than lie where "
            "their world and recipe point to: they are done again"
        )
    if other := sum(state == "outdated" for state in states.values()):
        yield (
            f"{other} of {len(states)} cells were judged by an earlier exam of their world, or do not "
            "say by which, and it asks otherwise now: they are done again"
        )


def _of_the_same_files(told: Mapping[str, Any], cell: Cell) -> bool:
    """Whether a cell's files hold what they did. Cells of earlier versions do not say."""
    was = told.get("contents", cell.contents)
    return not cell.contents or was in ("", cell.contents)


def _exam_of(folder: Path, told: Mapping[str, Any], cell: Cell) -> int:
    """By which exam a cell that is done was judged."""
    if "exam" in told or cell.exam == 1:
        return int(told.get("exam", 1))
    return world_of(cell.world).examined(read_json(folder / "results.json"))


def _spoilt(folder: Path, status: Mapping[str, Any]) -> bool:
    """Whether the results of a cell that is done are not those that it found."""
    content = read_json(folder / "results.json")
    now = _digest(folder / "results.json")
    # Cells of earlier versions do not say.
    return not isinstance(content, dict) or status.get("results", now) != now


def _digest(file: Path) -> str:
    return hashlib.blake2b(file.read_bytes(), digest_size=8).hexdigest()


def prepare(given: Mapping[str, Any], seed: int, cache: Path) -> Ground:
    """The ground of a world and seed, for processes that make them before any cell."""
    return world_of(given).prepare(seed, cache, silent)


def run_cell(
    cell: Cell,
    ground: Ground,
    folder: Path,
    cache: Path,
    keep_model: bool,
    first_stages: Path | None = None,
) -> str:
    """Do the cell in `folder`; returns the state it ends in. What goes wrong is written there.
    `first_stages`: where chains that begin alike keep what they begin with."""
    logging.disable_progress_bar()
    # As if it had begun earlier by what went into the part that it goes on from.
    began = time.perf_counter() - begin(cell, folder)
    try:
        log = (folder / "log.txt").open("a", buffering=1)
        with log, redirect_stdout(log), redirect_stderr(log):
            notes = _train_and_evaluate(cell, ground, folder, cache, first_stages, began)
    except Exception as error:
        with (folder / "log.txt").open("a") as log:
            traceback.print_exc(file=log)
        _tell(folder, "failed", time.perf_counter() - began, first_line(error))
        return "failed"
    _tell(folder, "done", time.perf_counter() - began, notes=notes)
    if cell.recipe is not None and not keep_model:
        # A study has hundreds of cells, and what is reported of them is in `results.json`. Only now: a
        # cell that is interrupted before it is done goes on from them.
        for weights in folder.rglob("*.safetensors"):
            weights.unlink()
    return "done"


def mark_failed(folder: Path, reason: str) -> None:
    """For a cell whose process died."""
    _tell(folder, "failed", math.nan, reason)


def begin(cell: Cell, folder: Path) -> float:
    """A folder of this cell; what an interrupted run of it left stays, to be gone on with. Returns the
    seconds that went into that."""
    goes_on, spent_before = False, 0.0
    with suppress(OSError, ValueError, KeyError, TypeError):
        told = read_json(folder / "cell.json")
        same = told["digest"] == cell.digest and _of_the_same_files(told, cell)
        status = read_json(folder / "status.json")
        # One that ended is begun anew; one that was running goes on from its checkpoint.
        goes_on = same and status["state"] == "running"
        if goes_on:
            spent_before = _spent_before(folder, float(status["seconds"]))
    if not goes_on:
        drop(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "cell.json", cell.describe())
    _tell(folder, "running", spent_before)
    return spent_before


def _spent_before(folder: Path, earlier: float) -> float:
    """Seconds that went into what an interrupted cell left to go on from: up to its last checkpoint or
    the end of its last stage, by the times at which these and its status were written. earlier: those
    of the legs before its last one."""
    left = [file.stat().st_mtime for file in _left(folder / "run")]
    began = (folder / "status.json").stat().st_mtime
    return earlier + max(0.0, max(left) - began) if left else 0.0


def _left(run: Path) -> list[Path]:
    """What an interrupted run can be gone on with from: the ledger of its stages, and checkpoints."""
    step = "checkpoints/step-*/progress.json"
    return [path for name in ("stages.json", step, f"*/{step}") for path in run.glob(name)]


def _tell(
    folder: Path, state: str, seconds: float, error: str = "", notes: Sequence[str] = ()
) -> None:
    took = round(seconds, 2) if math.isfinite(seconds) else None
    told: dict[str, Any] = {"state": state, "error": error, "seconds": took}
    if state == "done":
        told |= {"results": _digest(folder / "results.json"), "notes": list(notes)}
    write_json(folder / "status.json", told)


def _train_and_evaluate(
    cell: Cell,
    ground: Ground,
    folder: Path,
    cache: Path,
    first_stages: Path | None,
    began: float,
) -> Sequence[str]:
    """What the world says of its judging. began: by `perf_counter`, with what went before an
    interruption."""
    model, run, found = ground.base, folder / "run", {}
    if cell.recipe is not None:
        model = _train(cell, ground, run, cache, first_stages)
        took = time.perf_counter() - began + seconds_taken(run)
        found = {"seconds": took, **spent(run)}
    evaluated = world_of(cell.world).evaluate(ground, model, cell.seed, cell.split)
    _write_answers(folder / "samples.jsonl", evaluated)
    found |= _after_stages(cell, ground, run, evaluated.metrics)
    write_json(folder / "results.json", {**evaluated.metrics, **found})
    return evaluated.notes


def _after_stages(
    cell: Cell, ground: Ground, run: Path, end: Mapping[str, float]
) -> dict[str, float]:
    """What the model was worth after the stages of which that is asked, and what share of that is left
    at the end (of metrics that are better higher)."""
    if not cell.after:
        return {}
    found: dict[str, float] = {}
    world, folders = world_of(cell.world), {}
    for one in read_json(run / "stages.json"):
        folders[one["name"]] = run / one["folder"] / "model"
    higher = {name for name, metric in world.metrics.items() if metric.better == "higher"}
    for stage in cell.after:
        model = folders[stage].resolve()
        then = world.evaluate(ground, model, cell.seed, cell.split).metrics
        found |= {f"after/{stage}/{name}": value for name, value in then.items()}
        shares = {n: end[n] / v for n, v in then.items() if n in higher and n in end and v > 0}
        found |= {f"left/{stage}/{name}": value for name, value in shares.items()}
    return found


def _train(cell: Cell, ground: Ground, run: Path, cache: Path, first_stages: Path | None) -> Path:
    """The trained model. A run that was interrupted goes on from its checkpoint, or starts anew."""
    assert cell.recipe is not None
    values = {"base": str(ground.base), "data": str(ground.data)}
    content = filled(cell.recipe, values)
    content.setdefault("cache_dir", str(cache))
    train = {**content.get("train", {})}
    train.setdefault("seed", cell.seed)
    content["train"] = train
    recipe = parse_recipe(within(content, cell.budget))
    resume = bool(_left(run))
    if not resume:
        shutil.rmtree(run, ignore_errors=True)
    saved = carry_out(recipe, run, resume=resume, say=print, first_stages=first_stages)
    if (
        saved.name != "model"
    ):  # a signal stopped it: the study stops, too, and goes on from here later
        raise KeyboardInterrupt
    if cell.judged == "last_adapter":
        return _without_its_stages(saved.resolve(), ground.base, run.parent / "last_adapter")
    return saved.resolve()


def _without_its_stages(saved: Path, base: Path, folder: Path) -> Path:
    """A copy of an adapter that says it belongs to the base, whatever it was trained on."""
    settings = saved / "adapter_config.json"
    if not settings.is_file():
        raise ValueError(
            "evaluate: last_adapter needs a last stage that trains an adapter (model.lora)"
        )
    shutil.copytree(saved, folder, dirs_exist_ok=True)
    told = read_json(settings) | {"base_model_name_or_path": str(base.resolve())}
    write_json(folder / "adapter_config.json", told)
    return folder


def spent(run: Path) -> dict[str, float]:
    """What a run took, all its stages together, and what was measured of the model that it left: its
    last held-out losses (`eval/...`), what it kept. What the last stage did not measure, or not as a
    number, is not there: an earlier stage's number is of another model. `ValueError` where lines are
    damaged."""
    found = {"updates": 0.0, "tokens": 0.0}
    for folder in parts_in(run):
        found = {k: v for k, v in found.items() if not k.startswith(OF_ITS_END)}
        lines, damaged = json_lines(folder / "metrics.jsonl")
        if damaged:
            raise ValueError(
                f"{folder.name}/metrics.jsonl is damaged ({damaged} of its lines): what the run ended "
                "with may be among them; do the cell again with --retry"
            )
        steps = [line for line in lines if "tokens" in line]
        if steps:
            found["updates"] += steps[-1]["step"]
            found["tokens"] += steps[-1]["tokens"]
        lines = up_to_the_kept(lines)
        evaluated = [line for line in lines if any(k.startswith("eval/") for k in line)]
        if evaluated:
            first = evaluated[0] if evaluated[0]["step"] == 0 else {}
            found |= {
                f"start/{k}": v for k, v in _numbers(first).items() if f"start/{k}" not in found
            }
            found |= _numbers(evaluated[-1])
        kept = {k: v for line in lines for k, v in line.items() if k.startswith(WATCHED)}
        found |= {k: v for k, v in kept.items() if isinstance(v, int | float)}
    return found


def _numbers(line: Mapping[str, Any]) -> dict[str, float]:
    """Held-out losses of the model that is kept and judged: of the average, where there is one."""
    mark = "average_"
    own = {k: v for k, v in line.items() if k.startswith("eval/")}
    averaged = {k.removeprefix(mark): v for k, v in line.items() if k.startswith(f"{mark}eval/")}
    # An average whose loss is no number has none: that of the other weights is not its.
    return {k: v for k, v in (own | averaged).items() if isinstance(v, int | float)}


def _write_answers(file: Path, evaluated: Evaluated) -> None:
    """The first answers of each metric: of the same prompts for every model."""
    counts: dict[str, int] = {}
    lines = []
    for answer in evaluated.answers:
        metric = str(answer.get("metric", ""))
        counts[metric] = counts.get(metric, 0) + 1
        if counts[metric] <= SHOWN:
            lines.append(json_line(answer))
    write_text(file, "".join(lines))
