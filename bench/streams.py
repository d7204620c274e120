"""Many rows in many streams, from files to a trained model: seconds, memory, and the cost of a draw.

    python bench/streams.py                        # 300,000 rows in 200 streams
    python bench/streams.py --rows 3000 --streams 20

Every stream is a file of its own, of one of six kinds, of its own length; a tiny model takes some steps
on all of them. Draws are timed alone, too: they must not grow with the number of streams.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.tiny import make_tokenizer, tiny_llama, write_rows

from onestage.training.callbacks import Callback
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe

DRAWS = 100


def row(number: int, kind: int) -> dict[str, Any]:
    """A short row of one of six kinds."""
    asked, good, bad = f"Q {number}?", f" the sea {number % 97}", " no"
    return [
        {"prompt": asked, "completion": good},
        {"prompt": asked, "completion": good, "score": number % 11 / 10},
        {"prompt": asked, "completion": good, "label": number % 2 == 0},
        {"prompt": asked, "chosen": good, "rejected": bad},
        {"prompt": asked, "completions": [good, bad], "scores": [1.0, 0.0]},
        {"text": f"The sea {number} is red."},
    ][kind]


def memory() -> float:
    """Most resident memory so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Watch(Callback):
    """Says when the first step is reached, and times draws by themselves."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    def begin(self, run: Any) -> None:
        print(f"up to step 0: {time.perf_counter() - self.start:.1f} s, {memory():.0f} MiB")
        mixture = run.feeds.together or next(iter(run.feeds.own.values()))
        first = time.perf_counter()
        mixture.draw(1000)
        began = time.perf_counter()
        for step in range(DRAWS):
            mixture.draw(1001 + step)
        each = (time.perf_counter() - began) / DRAWS
        print(f"a draw: {1000 * each:.2f} ms (the first {1000 * (began - first):.0f} ms)")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--steps", type=int, default=50)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root, data, number = Path(folder), [], 0
        tiny_llama().save_pretrained(root / "model")
        make_tokenizer().save_pretrained(root / "model")
        each = asked.rows // asked.streams
        for stream in range(asked.streams):
            # From half to one and a half times the mean: shares that are no round numbers.
            size = each // 2 + each * stream // max(1, asked.streams - 1)
            rows = [row(number + place, stream % 6) for place in range(size)]
            number += size
            file = write_rows(root / f"stream-{stream}.jsonl", rows)
            data.append({"name": f"stream-{stream}", "path": str(file)})
        recipe = {
            "model": {"name": str(root / "model"), "lora": {"r": 2}},
            "data": data,
            "objective": "uft",
            "train": {"max_steps": asked.steps, "batch_size": 64, "max_length": 64},
            "cache_dir": str(root / "cache"),
        }
        start, watch = time.perf_counter(), Watch()
        print(f"{number:,} rows in {asked.streams} streams")
        carry_out(parse_recipe(recipe), root / "out", say=lambda line: None, callbacks=[watch])
        print(f"to the saved model: {time.perf_counter() - start:.1f} s, {memory():.0f} MiB")
        again = time.perf_counter()
        carry_out(parse_recipe(recipe), root / "again", say=lambda line: None)
        print(f"once more, encoded before: {time.perf_counter() - again:.1f} s")


if __name__ == "__main__":
    main()
