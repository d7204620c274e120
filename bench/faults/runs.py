"""Small runs of every sort, how they are begun in a process of their own, and what they come to."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support.tiny import make_tokenizer, tiny_llama, write_rows
from typer.testing import CliRunner

from onestage.cli._terminal import app
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe

WORDS = ("sea", "wind", "moon", "poem", "Paris", "red", "hello", "morning")


def sorts(root: Path) -> dict[str, dict[str, Any]]:
    """Recipes of small runs, with their model and data."""
    tiny_llama().save_pretrained(root / "model")
    make_tokenizer().save_pretrained(root / "model")
    demos = [{"prompt": f"Q {w}?", "completion": f" the {w}"} for w in WORDS]
    pairs = [{"prompt": f"Q {w}?", "chosen": f" the {w}", "rejected": " no"} for w in WORDS]
    problems = [{"prompt": f"Q {w}?", "answer": f"the {w}"} for w in WORDS]
    demo = write_rows(root / "demos.jsonl", demos)
    pair = write_rows(root / "pairs.jsonl", pairs)
    asked = write_rows(root / "problems.jsonl", problems)
    steps = {"max_steps": 8, "batch_size": 4, "learning_rate": 1e-2, "max_length": 64}
    every = {"logging_steps": 1, "save_steps": 2, "save_total_limit": 2}
    base: dict[str, Any] = {
        "model": str(root / "model"),
        "data": [{"name": "demos", "path": str(demo)}, {"name": "pairs", "path": str(pair)}],
        "train": {**steps, **every, "lr_scheduler_type": "cosine"},
        "cache_dir": str(root / "cache"),
    }
    both = {"demonstration": "sft", "pair": "dpo"}
    lora = {"name": str(root / "model"), "lora": {"r": 2, "dropout": 0.1}}
    stages = [
        {"name": "a", "streams": ["demos"]},
        {"name": "b", "streams": ["pairs"], "adapter": "stack", "reference": "start"},
    ]
    stages[1]["model"] = {"lora": {"r": 2}}  # type: ignore[assignment]
    weights = {"name": "maxright", "weights": {"sft": 0.5, "dpo": 0.5}}
    sums = {"name": "sums", "path": str(asked), "kind": "check", "reward": "match"}
    few = {"num_generations": 2, "max_completion_length": 4}
    return {
        "maxright": {**base, "objective": both, "schedule": weights},
        "lora": {**base, "model": lora, "objective": "uft"},
        "stages": {**base, "model": lora, "objective": both, "stages": stages},
        "online": {**base, "data": [sums], "objective": "reinforce", "rollout": few},
    }


def digest(out: Path) -> str:
    """Of the saved weights and all metrics but the clock's."""
    found = hashlib.sha256()
    for file in sorted((out / "model").resolve().glob("*.safetensors")):
        found.update(file.read_bytes())
    for file in sorted(out.rglob("metrics.jsonl")):
        for line in map(json.loads, file.read_text().split("\n")[:-1]):
            timed = [key for key in line if "second" in key]
            found.update(json.dumps({k: v for k, v in line.items() if k not in timed}).encode())
    return found.hexdigest()


def begin(recipe: dict[str, Any], out: Path, log: Path, *, resume: bool) -> int:
    """The run in a process of its own; its number."""
    child = os.fork()
    if child:
        return child
    with contextlib.suppress(OSError):
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(said, 1)
        os.dup2(said, 2)
    try:
        carry_out(
            parse_recipe(recipe), out, resume=resume, say=lambda line: print(line, flush=True)
        )
        os._exit(0)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        os._exit(1)


class Said:
    """What a command said, and how it ended."""

    def __init__(self, words: Sequence[str]) -> None:
        done = CliRunner().invoke(app, list(words))
        self.words, self.code, self.text = words, done.exit_code, done.output
        self.escaped = done.exception
        lines = self.text.rstrip().split("\n")
        # A study tells of each cell that failed, and does the others.
        self.errors = [line for line in lines if line.startswith(("error: ", "failed: "))]
        self.usage = self.code == 2 and "Usage:" in self.text

    @property
    def plain(self) -> bool:
        """Whether it ended well, or with what a user can read: no traceback, no fault of ours."""
        escaped = self.escaped is not None and not isinstance(self.escaped, SystemExit)
        ours = "Traceback" in self.text or "fault of onestage" in self.text
        return not escaped and not ours and (self.code == 0 or bool(self.errors) or self.usage)

    @property
    def refused(self) -> bool:
        """Whether it ended in `error:` lines (`check` prints one for each mistake)."""
        return self.plain and self.code != 0


def chances(seed: int, what: str) -> random.Random:
    return random.Random(f"{seed} {what}")
