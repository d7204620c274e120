"""Study and run folders to report on, written by hand: numbers that a test can compute itself."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import yaml

SEEDS = (0, 1, 2)
METRICS = {
    "formats": {"says": "answers in the asked format", "better": "higher", "group": "formats"},
    "truth": {"says": "the truth, not the misconception", "better": "higher", "group": "truth"},
    "knowledge": {"says": "what the base knew", "better": "higher", "group": "kept"},
    "text_loss": {"says": "loss on pretraining text", "better": "lower", "group": "kept"},
    "length": {"says": "tokens of an answer", "better": None, "group": "shape"},
}
VALUES = {
    "base": {"formats": 0.1, "truth": 0.5, "knowledge": 0.9, "text_loss": 0.8, "length": 20.0},
    "SFT->DPO": {"formats": 0.6, "truth": 0.7, "knowledge": 0.6, "text_loss": 1.4, "length": 14.0},
    "UFT": {"formats": 0.8, "truth": 0.7, "knowledge": 0.88, "text_loss": 0.9, "length": 12.0},
    "MAXRIGHT": {"formats": 0.7, "truth": 0.8, "knowledge": 0.8, "text_loss": 1.0, "length": 13.0},
}
STEP = {"base": 0.02, "SFT->DPO": 0.05, "UFT": 0.03, "MAXRIGHT": 0.02}
"""Seed s has its method's value + (s - 1) times this."""


def value(method: str, metric: str, seed: int) -> float:
    return VALUES[method][metric] + STEP[method] * (seed - 1)


def write(file: Path, content: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


def write_lines(file: Path, lines: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def make_run(folder: Path, seed: int = 0, drift: float = 1.0, *, done: bool = True) -> Path:
    """A run of two terms with everything that runs measure."""
    recipe = {
        "model": {"name": "base"},
        "objective": "uft",
        "train": {"max_steps": 60, "seed": seed},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    environment = {
        "versions": {"onestage": "0.1.0"},
        "git": "0123abc",
        "command": ["onestage", "train"],
    }
    write(folder / "manifest.json", {**environment, "steps": 60, "seed": seed})
    counts = {"responses": 64, "tokens": 2048, "scored_tokens": 900, "longest": 80, "refused": 1}
    counts |= {"overlong": 0, "ties": 2, "cut": 0}
    stream = {
        "source": "scores",
        "records": {"score": 64},
        **counts,
        "reasons": ["row 3: no score"],
    }
    write(folder / "data.json", {"train": {"scores": stream}, "eval": {"scores": stream}})
    lines: list[dict[str, Any]] = [{"step": 0, **evaluation(0.0, drift)}]
    for step in range(5, 61, 5):
        part = step / 60
        lines.append(training(step, part, drift))
        if step % 20 == 0:
            lines += [
                {"step": step, **probe(part, drift)},
                {"step": step, **evaluation(part, drift)},
            ]
    write_lines(folder / "metrics.jsonl", lines)
    if done:
        (folder / "model").mkdir(exist_ok=True)
    return folder


def training(step: int, part: float, drift: float) -> dict[str, Any]:
    loss = 0.7 * math.exp(-2 * part) + 0.02 * drift * math.sin(step)
    return {
        **{"step": step, "loss": loss, "tokens": 100 * step, "learning_rate": 1e-3 * (1 - part)},
        **{"grad_norm": 1.0 + 0.3 * drift * math.cos(step), "tokens_per_second": 1000.0},
        **{"weight/sft": 0.5, "weight/dpo": 0.5, "scores/loss": loss / 2},
        **{"scores/implicit_reward": 2 * part, "scores/implicit_score": 0.5 + part / 4},
    }


def probe(part: float, drift: float) -> dict[str, float]:
    return {
        **{"retention/kept/kl": 0.1 * drift * part, "retention/kept/loss": 0.8 + drift * part / 5},
        **{"probe/grad_norm/sft": 2.0, "probe/grad_norm/dpo": 1.0},
        **{"probe/grad_share/sft": 0.6 + drift * part / 10, "probe/grad_share/dpo": 0.4},
        "probe/cosine/sft/dpo": 0.2 - 0.4 * part,
    }


def evaluation(part: float, drift: float) -> dict[str, float]:
    found = {
        **{"eval/loss": 1.0 - part / 2, "eval/terms/sft": 2.0 - part / drift},
        **{"eval/terms/dpo": 0.7 - 0.3 * part * drift, "eval/pairs/pair/accuracy": 0.5 + part / 4},
    }
    for tenth in range(0, 11, 2):
        reward = 3 * part * (tenth / 10 - 0.5)
        found[f"eval/scores/score/implicit_reward_at_{tenth / 10:g}"] = reward
    return found


def make_stages(folder: Path, seed: int = 0, drift: float = 1.0) -> Path:
    """A run of two stages."""
    stages = [
        {"name": n, "folder": f"{k}-{n}", "done": True} for k, n in enumerate(("sft", "dpo"), 1)
    ]
    for stage in stages:
        make_run(folder / str(stage["folder"]), seed, drift)
    write(folder / "stages.json", stages)
    (folder / "recipe.yaml").write_text("stages: [sft, dpo]\n")
    return folder


def make_cell(
    study: Path,
    method: str,
    seed: int,
    results: dict[str, float] | None,
    *,
    axes: dict[str, Any] | None = None,
    purpose: str = "test",
    state: str = "done",
    error: str = "",
) -> Path:
    place = "-".join(f"{v}" for v in (axes or {}).values())
    name = "-".join(
        part for part in (purpose, method.replace("->", "_then_"), place, str(seed)) if part
    )
    folder = study / "cells" / name
    choice = {"train.learning_rate": 5e-4} if method != "base" else {}
    about = {"name": name, "method": method, "seed": seed, "purpose": purpose, "axes": axes or {}}
    write(folder / "cell.json", {**about, "choice": choice})
    write(folder / "status.json", {"state": state, "error": error, "seconds": 12.5 + seed})
    if results is not None:
        write(folder / "results.json", results)
    return folder


def make_study(study: Path, *, runs: bool = True, seeds: tuple[int, ...] = SEEDS) -> Path:
    """Four methods, three seeds, everything done: `value` says what each cell reached."""
    for number, method in enumerate(VALUES):
        for seed in seeds:
            folder = make_cell(study, method, seed, {m: value(method, m, seed) for m in METRICS})
            samples(folder, method, number)
            if runs and method == "SFT->DPO":
                make_stages(folder / "run", seed, 1.5)
            elif runs and method != "base":
                make_run(folder / "run", seed, 0.6 + 0.2 * number)
    make_cell(study, "UFT", 9, {"formats": 0.75}, purpose="tune")
    about = {
        "name": "table-1",
        "description": "Is one stage better than the chain? Demonstrations and pairs of the lab world.",
        **{"base": "base", "methods": list(VALUES), "axes": {}, "seeds": list(seeds)},
        **{"budget": {"updates": 192}, "tune": {"trials": 4, "seeds": [9], "metric": "formats"}},
        **{
            "world": {"name": "lab"},
            "metrics": METRICS,
            "headline": ["formats", "truth", "knowledge"],
        },
        **{"front": {"x": "formats", "y": "knowledge"}, "command": "onestage study table-1.yaml"},
        **{"versions": {"onestage": "0.1.0", "torch": "2.13.0"}, "written": "2026-11-21T18:00:00"},
    }
    write(study / "study.json", about)
    (study / "study.yaml").write_text("name: table-1\nseeds: 3\n")
    part = {"says": "UFT - SFT then DPO", "mean": 0.2, "low": 0.15, "high": 0.25, "n": 3}
    claims = [
        {
            "claim": "One stage beats the chain",
            "source": "UFT, table 2",
            "paper": "65.7 against 62.1",
        },
        {
            "claim": "The chain forgets",
            "source": "UFT, table 3",
            "paper": "-4.1",
            "verdict": "holds",
        },
        {"claim": "Order does not matter", "paper": "none", "verdict": "does not hold"},
    ]
    for claim in claims:
        claim |= {"metric": "formats", "parts": [part]}  # type: ignore[dict-item]
    write(study / "claims.json", claims)
    return study


def make_axes_study(study: Path, *axes: str) -> Path:
    """Two methods over one axis or two, two seeds."""
    places = {"learning_rate": [1e-4, 1e-3, 1e-2], "beta": [0.01, 0.1]}
    grid: list[dict[str, Any]] = [{}]
    for name in axes:
        grid = [{**one, name: item} for one in grid for item in places[name]]
    for method in ("SFT->DPO", "UFT"):
        for n, one in enumerate(grid):
            for seed in (0, 1):
                results = {m: value(method, m, seed) + 0.01 * n for m in METRICS}
                make_cell(study, method, seed, results, axes=one)
    for seed in (0, 1):
        make_cell(study, "base", seed, {m: value("base", m, seed) for m in METRICS})
    about = {"name": "rates", "base": "base", "methods": ["base", "SFT->DPO", "UFT"]}
    chosen = {"axes": {name: places[name] for name in axes}, "metrics": METRICS, "seeds": [0, 1]}
    write(study / "study.json", {**about, **chosen, "headline": ["formats", "truth", "knowledge"]})
    return study


def samples(cell: Path, method: str, number: int) -> None:
    lines = [
        {
            "prompt": f"### Question: what is the capital of land {n}?\n### Answer:",
            "response": f" The capital is town {n if n % (number + 1) == 0 else n + 1}. ({method})",
            "metric": "knowledge",
            "right": n % (number + 1) == 0,
        }
        for n in range(5)
    ]
    write_lines(cell / "samples.jsonl", lines)


def harm(study: Path) -> Path:
    """A failed cell, one that waits, one damaged, and one with a number that is none."""
    make_cell(study, "UFT", 3, None, state="failed", error="loss is not finite at step 12")
    make_cell(study, "UFT", 4, None, state="waiting")
    (make_cell(study, "MAXRIGHT", 3, {}) / "results.json").write_text('{"formats": 0.')
    make_cell(study, "MAXRIGHT", 4, {"formats": math.nan, "truth": 0.8})
    return study


def specs(text: str) -> list[dict[str, Any]]:
    """What the figures of a section are drawn from, with their titles."""
    found = re.findall(
        r'<figcaption>(.*?)</figcaption>.*?<script type="application/json">(.*?)</script>', text
    )
    return [{**json.loads(spec), "title": title} for title, spec in found]
