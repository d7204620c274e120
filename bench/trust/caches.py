"""Damaged caches, and runs that share one at once: what becomes of each, measured.

    python -m bench.trust caches

A tiny run fills a cache (encoded data, the reference's log-probabilities, a measured f*). Each of its
files is damaged in each way and the run made again: it must come to the weights that it has without a
cache, say one line about what it made anew, and end in no traceback. Then processes start at once on one
empty cache, and on a damaged one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from onestage.runfolder.seal import SEAL
from onestage.studies.lab.lock_base import lock_tokenizer
from onestage.studies.lab.presets import llama
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe

SHAPE = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}
CACHES = {"tokens": "encoded data", "reference": "reference", "optimum": "f*"}
PROCESSES = 6


def flip(file: Path, part: float) -> None:
    """One bit of the byte that lies so far into the file."""
    content = bytearray(file.read_bytes())
    if content:
        content[min(int(part * len(content)), len(content) - 1)] ^= 1
    file.write_bytes(content)


def _instead(file: Path) -> None:
    file.unlink()
    (file / "inside").mkdir(parents=True)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "first byte flipped": lambda file: flip(file, 0.0),
    "a byte in the middle flipped": lambda file: flip(file, 0.5),
    "last byte flipped": lambda file: flip(file, 1.0),
    "cut in half": lambda file: os.truncate(file, file.stat().st_size // 2),
    "empty": lambda file: file.write_bytes(b""),
    "other bytes": lambda file: file.write_bytes(os.urandom(64)),
    "bytes added": lambda file: file.open("ab").write(b"\0"),
    "missing": lambda file: file.unlink(),
    "a folder instead": _instead,
}


class World:
    """A tiny model and its data in a folder, and the run that uses all three caches."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        tokenizer = lock_tokenizer()
        tokenizer.save_pretrained(folder / "tokenizer")
        words = [word for word in tokenizer.get_vocab() if word.startswith(" ")][:6]
        pairs = [
            {"prompt": one, "chosen": one + other, "rejected": other}
            for one in words
            for other in words
            if one != other
        ]
        texts = [{"prompt": pair["prompt"], "completion": pair["chosen"]} for pair in pairs]
        for name, rows in (("pairs", pairs), ("texts", texts)):
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / f"{name}.jsonl").write_text(lines)
        self.recipe: dict[str, Any] = {
            "model": {
                "config": llama(tokenizer, SHAPE),
                "tokenizer": str(folder / "tokenizer"),
                "dtype": "float32",
            },
            "data": {name: str(folder / f"{name}.jsonl") for name in ("pairs", "texts")},
            "objective": {"pair": "dpo", "demonstration": "sft"},
            "schedule": {"name": "mix"},
            "optimum": {"steps": 2, "given": {"sft": 0.1}},
            "train": {"max_steps": 2, "batch_size": 4, "max_length": 32, "learning_rate": 1e-3},
        }

    def run(self, cache: Path) -> tuple[str, list[str]]:
        """A digest of the trained weights and f*, and what was said."""
        said: list[str] = []
        self.count += 1
        out = self.folder / f"run{self.count}"
        recipe = parse_recipe({**self.recipe, "cache_dir": str(cache)})
        model = carry_out(recipe, out, say=said.append)
        weights = (model / "model.safetensors").read_bytes()
        shutil.rmtree(out)
        found = next(line for line in said if "on training rows" in line).split(" (")[0]
        return hashlib.blake2b(weights + found.encode()).hexdigest(), said


def files_of(cache: Path) -> list[Path]:
    """Everything that is kept, but for locks."""
    return sorted(
        file for file in cache.rglob("*") if file.is_file() and not file.name.endswith(".lock")
    )


@contextlib.contextmanager
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory() as folder:
        yield World(Path(folder))


def outcome(there: World, whole: Path, file: Path, damage: str, wanted: str) -> str:
    """What becomes of a run whose cache (a copy of `whole`) has one damaged file."""
    cache = there.folder / "damaged"
    shutil.rmtree(cache, ignore_errors=True)
    shutil.copytree(whole, cache)
    DAMAGES[damage](cache / file.relative_to(whole))
    try:
        got, said = there.run(cache)
    except Exception as error:
        return f"{type(error).__name__}"
    lines = [line for line in said if "damaged" in line]
    if got != wanted:
        return "OTHER RESULT"
    return f"same result, {len(lines)} line{'' if len(lines) == 1 else 's'}"


def at_once(there: World, cache: Path, processes: int) -> Counter[str]:
    """What becomes of processes that start together on one cache."""
    # Forked, so that they have imported everything and meet in the cache, not before it.
    context = multiprocessing.get_context("fork")
    begin, ended = context.Barrier(processes), context.SimpleQueue()

    def run(number: int) -> None:
        there.count += 100 * (number + 1)
        begin.wait()
        try:
            ended.put(there.run(cache)[0])
        except BaseException as error:
            ended.put(f"{type(error).__name__}: {error}")

    started = [context.Process(target=run, args=(number,)) for number in range(processes)]
    for child in started:
        child.start()
    results = Counter(ended.get() for _ in started)
    for child in started:
        child.join()
    return results


def table() -> str:
    """Markdown: damages x caches, and processes at once."""
    with world() as there:
        whole = there.folder / "whole"
        wanted, _ = there.run(whole)
        found: dict[tuple[str, str], Counter[str]] = {}
        for file in (file for file in files_of(whole) if file.stat().st_size):
            cache = file.relative_to(whole).parts[0]
            for damage in DAMAGES:
                counts = found.setdefault((damage, cache), Counter())
                counts[outcome(there, whole, file, damage, wanted)] += 1
        lines = [f"| damage to one file | {' | '.join(CACHES.values())} |"]
        lines.append("|---|" + "---|" * len(CACHES))
        for damage in DAMAGES:
            cells = [
                "; ".join(f"{count} {what}" for what, count in found[damage, cache].items())
                for cache in CACHES
            ]
            lines.append(f"| {damage} | {' | '.join(cells)} |")
        shutil.rmtree(there.folder / "damaged")
        empty = at_once(there, there.folder / "empty", PROCESSES)
        broken = there.folder / "broken"
        shutil.copytree(whole, broken)
        for seal in broken.rglob(SEAL):
            flip(seal, 0.5)
        damaged = at_once(there, broken, PROCESSES)
    for name, ended in (("an empty", empty), ("a damaged", damaged)):
        same = f"{ended[wanted]} came to the result of one alone"
        lines += ["", f"{PROCESSES} runs at once on {name} cache: {same}."]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
