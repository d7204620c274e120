"""A ground for small studies: a folder with a model, and files of every split."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random
from typing import Any

from support.tiny import write_rows

WORDS = "one two three four five six seven eight nine ten".split()
TRAIN = {"learning_rate": "{rate}", "batch_size": 4, "max_length": 64, "logging_steps": 2}
DPO = {"name": "dpo", "streams": ["pairs"], "objective": "dpo", "reference": "start"}


def ground(folder: Path, model: Path) -> tuple[Path, Path]:
    """Model and data folders: counting words, with pairs and plain text."""
    base, data, random = folder / "base", folder / "data", Random(0)
    shutil.copytree(model, base)
    data.mkdir()
    for split in ("train", "validation", "test"):
        asked = [random.choice(WORDS) for _ in range(24)]
        prompts = [f"count: {word}" for word in asked]
        good = [f" {word} {word}" for word in asked]
        bad = [f" {random.choice(WORDS)}" for _ in asked]
        rows: dict[str, list[dict[str, Any]]] = {
            "demonstration": [
                {"prompt": p, "completion": g} for p, g in zip(prompts, good, strict=True)
            ],
            "pair": [
                {"prompt": p, "chosen": g, "rejected": b}
                for p, g, b in zip(prompts, good, bad, strict=True)
            ],
            "text": [{"text": " ".join(random.choices(WORDS, k=12))} for _ in range(8)],
        }
        for kind, many in rows.items():
            write_rows(data / f"{kind}.{split}.jsonl", many)
    return base, data


def content(model: Path, data: Path, **changes: Any) -> dict[str, Any]:
    """A study of SFT and SFT then DPO, as plain data."""
    study: dict[str, Any] = {
        "name": "counting",
        "world": {
            **{"name": "folder", "model": str(model), "data": str(data), "limit": 8},
            **{"answers": 2, "max_completion_length": 4},
        },
        "seeds": [0, 1],
        "budget": {"updates": 4},
        "recipe": {
            "model": {"name": "{base}"},
            "data": [
                {"name": "demos", "path": "{data}/demonstration.train.jsonl"},
                {"name": "pairs", "path": "{data}/pair.train.jsonl"},
            ],
            "train": TRAIN,
        },
        "methods": {
            "SFT": {"streams": ["demos"], "objective": "sft", "try": {"rate": [0.01]}},
            "SFT then DPO": {
                "stages": [{"name": "sft", "streams": ["demos"], "objective": "sft"}, DPO],
                "try": {"rate": [0.01]},
            },
        },
    }
    return {**study, **changes}
