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
from onestage.lab.small_llama import base_config, pretraining_settings
from onestage.lab.tokenizer import train_tokenizer
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
    "tokens_per_row": 256,
    "logging_steps": 16,
    "eval_steps": 96,
}
OBJECTIVE = {"name": "uft", "beta": 0.03, "pairs": "score"}


def run_demo(
    out: Path, seed: int, console: Console, say: Say, make_watcher: Callable[[], Watcher]
) -> Path:
    """Build or load the base, train it in one stage, print before and after; returns the run folder."""
    began = time.perf_counter()
    world = World(seed)
    folder = out / f"seed-{seed}"
    files = write_rows(world, folder / "data")
    base = make_base(world, folder, seed, say, make_watcher)
    recipe = one_stage_recipe(base, files, folder / "cache")
    run = _free(folder / "one-stage")
    _keep(recipe, folder / "one-stage.yaml")
    say(
        f"training in one stage on {len(files) // 2} kinds of feedback: {folder / 'one-stage.yaml'}"
    )
    model = run_recipe(parse_recipe(recipe), run, say=say, watcher=make_watcher())
    say("evaluating both")
    found = {name: _evaluated(path, world) for name, path in (("before", base), ("after", model))}
    (run / "demo.json").write_text(json.dumps(found, indent=1))
    console.print(before_and_after(found["before"], found["after"]))
    say(f"{time.perf_counter() - began:.0f} s in all; run folder {run}, base model {base}")
    return run


def write_rows(world: Source, folder: Path) -> dict[str, Path]:
    """The world's feedback as a user's files, one a kind and split; what is there stays."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for kind in ANSWERED:
        for split in ("train", "eval"):
            rows = world.rows(kind, split)
            file = folder / f"{kind}.{split}.jsonl"
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
            files[f"{kind}.{split}"] = file
    return files


def make_base(
    world: Source, folder: Path, seed: int, say: Say, make_watcher: Callable[[], Watcher]
) -> Path:
    """The base model's folder: pretrained on the world's text, or found from an earlier demo."""
    model = folder / "base" / "model"
    if model.is_dir():
        say(f"base model found: {model}")
        return model
    tokenizer = train_tokenizer(world)
    tokenizer.save_pretrained(folder / "tokenizer")
    text = folder / "data" / "pretraining.jsonl"
    documents = ({"text": document} for document in world.pretraining_text("train"))
    text.write_text("".join(json.dumps(row) + "\n" for row in documents))
    recipe = {
        "model": {"config": base_config(tokenizer), "tokenizer": str(folder / "tokenizer")},
        "data": [{"name": "text", "path": str(text)}],
        "objective": "sft",
        "train": {**pretraining_settings(), "seed": seed, "logging_steps": 100},
        "cache_dir": str(folder / "cache"),
    }
    say(f"pretraining a small Llama on generated text ({text})")
    _keep(recipe, folder / "base.yaml")
    return run_recipe(parse_recipe(recipe), _free(folder / "base"), say=say, watcher=make_watcher())


def one_stage_recipe(base: Path, files: Mapping[str, Path], cache: Path) -> dict[str, Any]:
    """The demo's recipe: every kind of feedback, one objective."""
    streams = []
    for kind in ANSWERED:
        stream = {"name": f"{kind}s", "path": str(files[f"{kind}.train"])}
        streams.append({**stream, "eval_path": str(files[f"{kind}.eval"])})
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
    for name, says in METRICS.items():
        change = after[name] - before[name]
        better = -change if name == "text_loss" else change
        style = "green" if better > 0.005 else "red" if better < -0.005 else "dim"
        table.add_row(
            f"{name}: {says}",
            f"{before[name]:.2f}",
            f"{after[name]:.2f}",
            f"[{style}]{change:+.2f}[/]",
        )
    return table


def _evaluated(folder: Path, world: Source) -> dict[str, float]:
    model = AutoModelForCausalLM.from_pretrained(folder)
    return evaluate(model, AutoTokenizer.from_pretrained(folder), world)


def _keep(recipe: Mapping[str, Any], file: Path) -> None:
    file.write_text(yaml.safe_dump(dict(recipe), sort_keys=False))


def _free(folder: Path) -> Path:
    """The folder, or the first numbered one beside it that is not taken."""
    number, found = 2, folder
    while found.exists():
        found, number = folder.with_name(f"{folder.name}-{number}"), number + 1
    return found
