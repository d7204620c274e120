"""Whole runs on the GPU against the same runs on the CPU, in float32; again, and resumed.

A small Llama on real rows: demonstrations, pairs and scored answers by UFT under MAXRIGHT, full
fine-tuning; pairs by DPO with adapters. Losses of all steps are compared with the CPU's. A run is
repeated on the same device, and killed at half its steps and resumed: whether these are bit-equal is
told, and not required (some kernels of backward passes add in any order). A run in bfloat16, and one of
GRPO that samples its own answers, must end with finite losses.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from on_gpu import Found, Given, folder_of, llama, rows_of, written

STEPS = 12
HOW = ("whole", "again", "stopped", "resumed")


def measure(given: Given) -> Found:
    found = Found(
        f"Runs of {STEPS} steps, float32 unless named: largest relative difference of a step's loss.",
        ("run", "against", "difference", "holds"),
    )
    asked, more = recipes(given), finite(given)
    here = [spec(given, recipe, name, how) for name, recipe in asked.items() for how in HOW]
    here += [spec(given, recipe, name, "alone") for name, recipe in more.items()]
    there = [spec(given, recipe, name, "cpu") for name, recipe in asked.items()]
    with ThreadPoolExecutor(2) as pool:
        jobs = pool.submit(carried_out, here), pool.submit(carried_out, there, cpu=True)
        found_of = {**jobs[0].result(), **jobs[1].result()}
    for name in asked:
        whole = found_of[name, "whole"]
        gap = largest(whole, found_of[name, "cpu"])
        told = found.require(gap < 1e-3, f"{name}: {gap:.2g} from the CPU's")
        found.add(name, "the CPU", gap, told)
        gap = largest(found_of[name, "again"], whole)
        found.rows.append(
            (name, "itself, again", gap, "bit-equal" if gap == 0 else "not bit-equal")
        )
        gap = largest(found_of[name, "resumed"], whole)
        told = found.require(gap < 1e-3, f"{name}, resumed: {gap:.2g} from the run in one go")
        found.add(name, "itself, resumed at half", gap, told)
    for name in more:
        values = found_of[name, "alone"]
        whole = len(values) == STEPS and all(abs(value) < 1e6 for value in values)
        shown = f"{values[0]:.3g} to {values[-1]:.3g}" if values else "none"
        found.add(name, "finite losses", shown, found.require(whole, f"{name}: {values}"))
    return found


def recipes(given: Given) -> dict[str, dict[str, Any]]:
    small = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3, "head_dim": 32}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    model = folder_of(given, "runs", llama(given, **small, **heads))
    names = {
        "demos": "gpteacher_roleplay",
        "pairs": "hh_harmless_pairs",
        "scored": "alpaca_eval_scored",
    }
    data = [
        {"name": name, "path": str(written(given.work / f"{name}.jsonl", rows_of(given, file, 24)))}
        for name, file in names.items()
    ]
    train = {
        **{"max_steps": STEPS, "batch_size": 6, "learning_rate": 1e-3, "max_length": 1024},
        **{"logging_steps": 1, "save_steps": STEPS // 2, "lr_scheduler_type": "constant"},
        "overflow": "drop",
    }
    base = {"model": {"name": str(model), "dtype": "float32"}, "train": train}
    weights = {
        "name": "maxright",
        "weights": dict.fromkeys(("demonstration", "pair", "scored"), 1.0),
    }
    return {
        "uft, maxright": {**base, "data": data, "objective": "uft", "schedule": weights},
        "dpo, LoRA": {
            **base,
            "model": {**base["model"], "lora": {"r": 8}},
            "data": data[1:2],
            "objective": "dpo",
        },
    }


def finite(given: Given) -> dict[str, dict[str, Any]]:
    mixed = recipes(given)["uft, maxright"]
    rows = [
        {"prompt": row["question"], "nums": [1, 2], "target": 3}
        for row in rows_of(given, "gsm8k", 24)
    ]
    problems = {"name": "problems", "path": str(written(given.work / "problems.jsonl", rows))}
    reward = f"{Path(__file__).parents[1] / 'length.py'}:Length"
    return {
        "uft, maxright, bfloat16": {**mixed, "model": {**mixed["model"], "dtype": "bfloat16"}},
        "grpo, sampling": {
            **{"model": mixed["model"], "train": {**mixed["train"], "save_steps": None}},
            "data": [{**problems, "kind": "check", "reward": reward}],
            **{"objective": "grpo", "rollout": {"num_generations": 4, "max_completion_length": 32}},
        },
    }


def spec(given: Given, recipe: dict[str, Any], name: str, how: str) -> dict[str, Any]:
    """What the child is told of a run. `stopped` and `resumed` are of one folder."""
    place = "resumed" if how == "stopped" else how
    folder = given.work / "runs-out" / f"{name.replace(' ', '-').replace(',', '')}-{place}"
    return {
        **{"key": [name, how], "out": str(folder), "resume": how == "resumed"},
        "recipe": {**recipe, "cache_dir": f"{folder}-cache"},
        "stop": STEPS // 2 if how == "stopped" else None,
    }


def carried_out(
    specs: list[dict[str, Any]], cpu: bool = False
) -> dict[tuple[str, str], list[float]]:
    """The runs, one after another in a process of their own; their steps' losses as logged."""
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if cpu else {}
    child = [sys.executable, "-c", CHILD, json.dumps(specs)]
    done = subprocess.run(child, env={**os.environ, **hidden}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{done.stdout[-500:]} {done.stderr[-1500:]}")
    found = {}
    for one in specs:
        lines = map(json.loads, (Path(one["out"]) / "metrics.jsonl").read_text().splitlines())
        found[tuple(one["key"])] = [line["loss"] for line in lines if "loss" in line]
    return found


CHILD = """
import json, sys, time
import torch
torch.backends.cuda.matmul.allow_tf32 = False
from pathlib import Path
from onestage.training.callbacks import Callback
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe
for spec in json.loads(sys.argv[1]):
    class Stop(Callback):
        def step(self, run, loss):
            run.stop = run.step == spec["stop"]
    began = time.monotonic()
    recipe = parse_recipe(spec["recipe"])
    carry_out(recipe, Path(spec["out"]), resume=spec["resume"], callbacks=[Stop()])
    print(spec["key"], time.monotonic() - began, file=sys.stderr, flush=True)
"""


def largest(some: list[float], others: list[float]) -> float:
    if len(some) != len(others) or not some:
        return float("nan")
    return max(abs(a - b) / max(abs(b), 1e-3) for a, b in zip(some, others, strict=True))
