"""`onestage demo`: the main job from nothing, in minutes on two CPU cores.

A small world is generated, a real Llama and tokenizer are made and pretrained on its text, and the base
is then trained in one stage on every kind of feedback. Both trainings are ordinary runs with ordinary
recipes, left in the output folder for reading and changing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer

from onestage.lab.contract import Source
from onestage.lab.evaluation import METRICS, evaluate
from onestage.lab.ground import make_base, write_rows
from onestage.lab.world import World
from onestage.recipe import parse_recipe
from onestage.records.record import ANSWERED
from onestage.run import run_recipe
from onestage.watcher import Watcher

Say = Callable[[str], None]

FINE_TUNING: dict[str, Any] = {
    "max_steps": 192,
    "batch_size": 32,
    "learning_rate": 7e-4,
    "lr_scheduler_type": "linear",
    "warmup_ratio": 0.05,
    "max_length": 96,
    "tokens_per_row": 1024,
    "logging_steps": 16,
    "eval_steps": 96,
}
SCORE_RANGE = [-1, 1]
"""As if the rater kept to the upper half of its scale: what is wrong is not pushed down far."""
OBJECTIVE = {"name": "uft", "beta": 0.03, "pairs": "score"}


def run_demo(
    out: Path, seed: int, console: Console, say: Say, make_watcher: Callable[[], Watcher]
) -> Path:
    """Build or load the base, train it in one stage, print before and after; returns the run folder."""
    began = time.perf_counter()
    world = World(seed)
    folder = out / f"seed-{seed}"
    files = write_rows(world, folder / "data")
    base = make_base(world, folder / "cache", seed=seed, say=say, watcher=make_watcher())
    recipe = one_stage_recipe(base, files, folder / "cache")
    run = _free(folder / "one-stage")
    _keep(recipe, folder / "one-stage.yaml")
    say(f"training in one stage on {len(ANSWERED)} kinds of feedback: {folder / 'one-stage.yaml'}")
    model = run_recipe(parse_recipe(recipe), run, say=say, watcher=make_watcher())
    say("evaluating both")
    found = {
        name: _evaluated(path, base, world) for name, path in (("before", base), ("after", model))
    }
    (run / "demo.json").write_text(json.dumps(found, indent=1))
    console.print(before_and_after(found["before"], found["after"]))
    say(f"{time.perf_counter() - began:.0f} s in all; run folder {run}, base model {base}")
    return run


def one_stage_recipe(base: Path, files: Mapping[str, Path], cache: Path) -> dict[str, Any]:
    """The demo's recipe: every kind of feedback, one objective."""
    streams = []
    for kind in ANSWERED:
        stream = {"name": f"{kind}s", "path": str(files[f"{kind}.train"])}
        scored = {"score_range": SCORE_RANGE} if kind in ("pair", "score", "group") else {}
        streams.append({**stream, **scored, "eval_path": str(files[f"{kind}.validation"])})
    return {
        "model": {"name": str(base)},
        "data": streams,
        "objective": OBJECTIVE,
        "train": FINE_TUNING,
        "cache_dir": str(cache),
    }


def before_and_after(before: Mapping[str, float], after: Mapping[str, float]) -> Table:
    """What was gained and what was forgotten."""
    table = Table(title="Before and after one stage", title_justify="left")
    for name in ("measure", "before", "after", "change"):
        table.add_column(name, justify="left" if name == "measure" else "right")
    for name, metric in METRICS.items():
        change = after[name] - before[name]
        better = {"higher": change, "lower": -change, None: 0.0}[metric.better]
        style = "green" if better > 0.005 else "red" if better < -0.005 else "dim"
        table.add_row(
            f"{name}: {metric.says}",
            f"{before[name]:.2f}",
            f"{after[name]:.2f}",
            f"[{style}]{change:+.2f}[/]",
        )
    return table


def _evaluated(folder: Path, base: Path, world: Source) -> dict[str, float]:
    model, start = (AutoModelForCausalLM.from_pretrained(path) for path in (folder, base))
    return evaluate(model, AutoTokenizer.from_pretrained(folder), world, base=start).metrics


def _keep(recipe: Mapping[str, Any], file: Path) -> None:
    file.write_text(yaml.safe_dump(dict(recipe), sort_keys=False))


def _free(folder: Path) -> Path:
    """The folder, or the first numbered one beside it that is not taken."""
    number, found = 2, folder
    while found.exists():
        found, number = folder.with_name(f"{folder.name}-{number}"), number + 1
    return found
