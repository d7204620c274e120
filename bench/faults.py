"""Faults on purpose: runs that are killed, and recipes that are no recipes.

    python bench/faults.py                       # some minutes: 40 kills, 200 recipes
    python bench/faults.py --kills 1000 --recipes 3000

Kills: runs of four sorts (a schedule that measures, adapters with dropout, stages, answers sampled
online) are ended by SIGKILL at random moments and resumed until they are done; weights and metrics must
be those of a run that was left alone, bit for bit. Recipes: each key is given values that it does not
allow, and `onestage check` must answer in `error:` lines, without a traceback.

Damaged folders and caches: `python -m bench.trust loading caches`. Full disks:
tests/field/test_full_disk.py with ONESTAGE_EVERY_SITE=1.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import typing
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import transformers
import yaml
from pydantic import BaseModel
from support.tiny import make_tokenizer, tiny_llama, write_rows
from typer.testing import CliRunner

from onestage.cli._terminal import app
from onestage.training.pipeline import carry_out
from onestage.training.recipe import Recipe, parse_recipe

WORDS = ("sea", "wind", "moon", "poem", "Paris", "red", "hello", "morning")
MOST_ATTEMPTS = 6
"""Kills of one run before it is let through."""
NO_VALUES: list[Any] = [
    *(None, "", [], {}, -1, 0, "x" * 300, [1], {"a": 1}, "\0", 1e400, True, {"name": None}),
    *({"name": "x"}, 10**30, "{", ["a"], [[]], [{}], "/dev/null", "a/b"),
]


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


def kill(most: int, seed: int, root: Path) -> tuple[str, bool]:
    """Runs killed until there were so many kills; what came of them, and whether all was well."""
    recipes, chance, whole = sorts(root), random.Random(seed), {}
    for name, recipe in recipes.items():
        start = time.monotonic()
        if os.waitpid(begin(recipe, root / name, root / "log", resume=False), 0)[1]:
            raise RuntimeError((root / "log").read_text()[-2000:])
        whole[name] = digest(root / name), time.monotonic() - start
    kills, wrong = 0, []
    for trial, name in enumerate(itertools.cycle(recipes)):
        if kills >= most:
            return f"{kills} kills in {trial} runs: {len(wrong)} ended otherwise {wrong}", not wrong
        out, status = root / f"{name}-{trial}", 1
        for attempt in range(MOST_ATTEMPTS + 1):
            resume = out.is_dir() and any(out.iterdir())
            child = begin(recipes[name], out, root / "log", resume=resume)
            if attempt < MOST_ATTEMPTS and kills < most:
                time.sleep(chance.uniform(0.02, 1.1) * whole[name][1])
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            status = os.waitpid(child, 0)[1]
            if not os.WIFSIGNALED(status):
                break
            kills += 1
        if status or digest(out) != whole[name][0]:
            wrong.append(out.name)
        else:
            shutil.rmtree(out)
    raise AssertionError


def keys(section: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key of a recipe, its sections' included."""
    for name, field in section.model_fields.items():
        yield (*above, name)
        held = [field.annotation, *typing.get_args(field.annotation)]
        for kind in [*held, *(inner for one in held for inner in typing.get_args(one))]:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from keys(kind, (*above, name))


def put(recipe: dict[str, Any], place: tuple[str, ...], value: Any) -> None:
    at: Any = recipe
    for name in place[:-1]:
        below = at.get(name)
        below = below[0] if isinstance(below, list) and below else below
        if not isinstance(below, dict):
            below = at[name] = {}
        at = below
    at[place[-1]] = value


def malform(most: int, seed: int, root: Path) -> tuple[str, bool]:
    """Recipes with a value that does not belong there; what `check` said, and whether all was well."""
    recipe = sorts(root)["lora"]
    cases = [(place, value) for place in sorted(set(keys(Recipe))) for value in NO_VALUES]
    random.Random(seed).shuffle(cases)
    found: Counter[str] = Counter()
    for place, value in cases[:most]:
        bad = copy.deepcopy(recipe)
        put(bad, place, value)
        (root / "bad.yaml").write_text(yaml.safe_dump(bad))
        done = CliRunner().invoke(app, ["check", str(root / "bad.yaml")])
        plain = "Traceback" not in done.output and "fault of onestage" not in done.output
        told = done.exit_code == 0 or "error: " in done.output
        escaped = done.exception and not isinstance(done.exception, SystemExit)
        how = "allowed" if done.exit_code == 0 else "refused in a line"
        if escaped or not (plain and told):
            how = "FAULT"
            print(f"FAULT {'.'.join(place)}: {str(value)[:40]!r}: {done.output[-200:]}")
        found[how] += 1
    return f"{sum(found.values())} recipes: {dict(found)}", not found["FAULT"]


def main() -> int:
    """Print what came of all faults; 1 where something was lost or told badly."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--recipes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    well = True
    for what, most in ((kill, asked.kills), (malform, asked.recipes)):
        with tempfile.TemporaryDirectory() as root:
            told, good = what(most, asked.seed, Path(root)) if most else ("none asked for", True)
            print(told, flush=True)
            well = well and good
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
