"""The study file of UFT's tables, unchanged, on a real model class and real data.

    python bench/real_study.py out --base MODEL [--seeds 0 1] [--updates 30] [--jobs 2]

Makes a data folder from ../shared/data (instructions and answers, human pairs, judged answers,
arithmetic text; short rows only), splits by row, and runs studies/uft_tables_1_3.yaml in the world
`folder` on it: on a GPU with any causal language model, here with a small Llama (bench/tradeoff.py
makes one). It shows that nothing in a study is about the lab; a small model and few updates decide
nothing about recipes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1] / "shared" / "data"
SPLITS = {"train": 400, "validation": 48, "test": 48}
LONGEST = 500
"""Characters of a row."""


def read(data: Path, name: str) -> Iterator[dict[str, Any]]:
    with gzip.open(data / f"{name}.jsonl.gz", "rt") as file:
        yield from map(json.loads, file)


def rows(data: Path) -> dict[str, list[dict[str, Any]]]:
    """Short rows of every kind; scores are of single answers, thumbs are those scores at 1/2."""
    judged = [
        {"prompt": group["prompt"], "completion": text, "score": min(1.0, 4 * score)}
        for group in read(data, "alpaca_eval_scored.train")
        for text, score in zip(group["completions"], group["scores"], strict=True)
    ]
    found = {
        "demonstration": list(read(data, "gpteacher_roleplay.train")),
        "pair": list(read(data, "hh_harmless_pairs.train")),
        "score": judged,
        "label": [
            {"prompt": r["prompt"], "completion": r["completion"], "label": r["score"] >= 0.5}
            for r in judged
        ],
        "text": [{"text": f"{r['question']}\n{r['answer']}"} for r in read(data, "gsm8k.train")],
    }
    return {
        kind: [row for row in many if sum(len(v) for v in row.values() if isinstance(v, str)) < LONGEST]
        for kind, many in found.items()
    }  # fmt: skip


def write(data: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for kind, many in rows(data).items():
        at = 0
        for split, number in sorted(SPLITS.items()):
            part = many[at : at + number]
            at += number
            text = "".join(json.dumps(row) + "\n" for row in part)
            (folder / f"{kind}.{split}.jsonl").write_text(text)
            print(f"{kind}.{split}: {len(part)} rows")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--base", required=True, help="a model folder or hub id")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the shared data")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--updates", type=int, default=30)
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    write(given.data, given.out / "data")
    world = {"name": "folder", "model": given.base, "data": str(given.out / "data"), "limit": 48}
    settings = {
        "world": world | {"answers": 8, "max_completion_length": 32},
        "seeds": given.seeds,
        "budget.updates": given.updates,
        "tune.trials": 1,
        "recipe.train.batch_size": 8,
        "recipe.train.max_length": 512,
    }
    command = [sys.executable, "-m", "onestage", "study"]
    command += [
        str(HERE.parent / "studies" / "uft_tables_1_3.yaml"),
        "--out",
        str(given.out / "study"),
    ]
    command += ["--cache", str(given.out / "cache"), "--jobs", str(given.jobs)]
    for key, value in settings.items():
        command += ["--set", f"{key}={json.dumps(value)}"]
    raise SystemExit(subprocess.run(command).returncode)


if __name__ == "__main__":
    main()
