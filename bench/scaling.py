"""Whether a step costs what it is given: by how many records there are, and by how long they are.

    python bench/scaling.py                       # small Llamas; some minutes
    python bench/scaling.py --model FOLDER        # lengths on a real model
    python bench/scaling.py --only records --most 1000000

- records: from 1,000 to a million demonstrations in a store on disk; milliseconds of a draw of 64 and of
  a whole step on them (the same tiny model, the same lengths), after ten that warm up. Target: flat.
- lengths: one demonstration of 256 to 4,096 tokens a step, forward and backward with adapters (r 16);
  microseconds a token. Target: at most 1.6 times those of 256.

Processor time on one thread: the median, and the smallest and largest, of steps that take turns.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numpy as np
import torch
from support.tiny import make_tokenizer, tiny_llama

from onestage import models
from onestage.data.encoded import Encoded
from onestage.data.mixture import MixedStream, Mixture
from onestage.data.packing import pack, pack_records
from onestage.data.store import Store, write
from onestage.data.trees import TokenPath
from onestage.models.policy import Policy

SIZES = (1_000, 30_000, 1_000_000)
LENGTHS = (256, 512, 1024, 2048, 4096)
BATCH, WARM = 64, 10
SMALL = {
    **{"model_type": "llama", "vocab_size": 400, "hidden_size": 256, "intermediate_size": 1024},
    **{"num_hidden_layers": 4, "num_attention_heads": 4, "max_position_embeddings": 4096},
}


def encoded(count: int) -> Iterator[Encoded]:
    """Demonstrations of 12 to 43 tokens."""
    draw = np.random.default_rng(0)
    for number in range(count):
        size = 12 + number % 32
        ids = draw.integers(5, 60, size, dtype=np.int32)
        path = TokenPath(ids, ((4, size),), (0,))
        yield Encoded("demonstration", (path,), (float("nan"),), 1.0, "many", str(number))


def of_records(most: int, steps: int) -> None:
    policy = Policy(tiny_llama())
    policy.train()
    with tempfile.TemporaryDirectory() as folder:
        draws: dict[str, Callable[[int], Any]] = {}
        for size in (size for size in SIZES if size <= most):
            store = write(encoded(size), "many", Path(folder) / str(size))
            assert isinstance(store, Store)
            batches = (WARM + steps) * BATCH
            mixture = Mixture([MixedStream("many", store, float(BATCH))], 0, {"many": batches})
            draws[f"{size:,} records"] = mixture.draw
        kept: dict[str, Any] = {}

        def drawn(name: str, step: int) -> None:
            kept[name] = draws[name](step)

        def trained(name: str, step: int) -> None:
            drawn(name, step)
            for row in pack_records(kept[name], 1024).rows:
                (-policy(row).sum()).backward()

        for what, work in (("a draw", drawn), ("a step", trained)):
            told(what, in_turns([*draws], work, steps, min(WARM, steps)), 1e3, "ms")


def of_lengths(model: str | None, longest: int, steps: int) -> None:
    policy = _adapted(model)
    vocabulary = policy.base.config.vocab_size
    draw = np.random.default_rng(0)
    rows = {}
    lengths = [size for size in LENGTHS if size <= longest]
    for size in lengths:
        ids = draw.integers(5, min(vocabulary, 30_000), size, dtype=np.int32)
        rows[f"{size:,} tokens"] = pack([[TokenPath(ids, ((1, size),), (0,))]], size)[0]

    def trained(name: str, step: int) -> None:
        (-policy(rows[name]).mean()).backward()

    found = in_turns([*rows], trained, steps, 1)
    each = {
        name: [seconds / size for seconds in found[name]]
        for name, size in zip(rows, lengths, strict=True)
    }
    told("a token", each, 1e6, "us")


def _adapted(name: str | None) -> Policy:
    with tempfile.TemporaryDirectory() as folder:
        make_tokenizer().save_pretrained(folder)
        fresh = {"config": SMALL, "tokenizer": folder}
        given: dict[str, Any] = fresh if name is None else {"name": name, "dtype": "float32"}
        section = models.Model(**given, lora=models.Lora(r=16))
        loaded = models.load(section, torch.device("cpu"), models.tokenizer_of(section), 0)
    return Policy(loaded.model, loaded.tokenizer).train()


def in_turns(
    names: list[str], work: Callable[[str, int], None], steps: int, warm: int
) -> dict[str, list[float]]:
    """Seconds of processor time of each, step by step."""
    found: dict[str, list[float]] = {name: [] for name in names}
    for step in range(warm + steps):
        for name in names:
            began = time.process_time()
            work(name, step)
            if step >= warm:
                found[name].append(time.process_time() - began)
    return found


def told(what: str, found: dict[str, list[float]], scale: float, unit: str) -> None:
    first = statistics.median(next(iter(found.values())))
    for name, seconds in found.items():
        middle, least, most = statistics.median(seconds), min(seconds), max(seconds)
        spread = f"({scale * least:.4g} to {scale * most:.4g})"
        times = f"{middle / first:.2f} times the first"
        print(f"{what} of {name}: {scale * middle:.4g} {unit} {spread}, {times}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", choices=("records", "lengths"))
    parser.add_argument("--most", type=int, default=SIZES[-1], help="records at most")
    parser.add_argument("--model", help="a model folder for the lengths")
    parser.add_argument("--longest", type=int, default=LENGTHS[-1], help="tokens at most")
    parser.add_argument("--steps", type=int, help="timed (default: 50 of records, 3 of lengths)")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.only != "lengths":
        of_records(asked.most, asked.steps or 50)
    if asked.only != "records":
        of_lengths(asked.model, asked.longest, asked.steps or 3)


if __name__ == "__main__":
    main()
