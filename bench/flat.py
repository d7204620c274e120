"""Do memory and open files stay flat over a long run?

    python bench/flat.py                     # 3,000 steps, some minutes
    python bench/flat.py --steps 300
    python bench/flat.py --quick             # seconds: that it runs; so few steps say nothing of memory

A tiny model is trained on everything that a run can hold: demonstrations and pairs mixed by MAXRIGHT,
problems answered online, evaluations, a probe with retention, checkpoints, samples. Resident memory,
open files, threads and child processes are printed on the way; from the first sixth to the end, memory
may grow by 5 %, and the others not at all.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.tiny import make_tokenizer, tiny_llama, write_rows

from onestage.runfolder import silent
from onestage.training.callbacks import Callback
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe

GROWTH = 1.05
"""Of resident memory, that is none."""
TIMES = 6
"""Measurements on the way."""


class Watch(Callback):
    """Prints what the process holds, every so many steps."""

    def __init__(self, steps: int) -> None:
        self.every = max(1, steps // TIMES)
        self.seen: list[tuple[float, int, int, int]] = []
        self.start = time.monotonic()

    def step(self, run: Any, loss: float) -> None:
        if run.step % self.every:
            return
        gc.collect()
        process = Path("/proc/self")
        pages = int((process / "statm").read_text().split()[1])
        children = sum(
            len((task / "children").read_text().split()) for task in (process / "task").iterdir()
        )
        now = (
            pages * os.sysconf("SC_PAGESIZE") / 2**20,
            len(list((process / "fd").iterdir())),
            len(list((process / "task").iterdir())),
            children,
        )
        self.seen.append(now)
        print(
            f"step {run.step:5}: {now[0]:7.1f} MiB, {now[1]} open files, {now[2]} threads, "
            f"{now[3]} child processes, {time.monotonic() - self.start:.0f} s",
            flush=True,
        )

    @property
    def flat(self) -> bool:
        """From the first measurement to the last."""
        first, last = self.seen[0], self.seen[-1]
        return last[0] <= GROWTH * first[0] and last[1:] <= first[1:]


def recipe(root: Path, steps: int) -> dict[str, Any]:
    """A run of everything, on rows that are made here."""
    tiny_llama().save_pretrained(root / "model")
    make_tokenizer().save_pretrained(root / "model")
    words = [f"{one} {other}" for one in ("sea", "wind", "red", "Paris") for other in range(25)]
    rows = {
        "demos": [{"prompt": f"Q {w}?", "completion": f" the {w}"} for w in words],
        "pairs": [{"prompt": f"Q {w}?", "chosen": f" the {w}", "rejected": " no"} for w in words],
        "sums": [{"prompt": f"Q {w}?", "answer": f"the {w}"} for w in words],
    }
    data = []
    for name, some in rows.items():
        file = write_rows(root / f"{name}.jsonl", some)
        data.append({"name": name, "path": str(file), "eval_path": str(file)})
    data[2] = {"name": "sums", "path": data[2]["path"], "kind": "check", "reward": "match"}
    weights = {"sft": 0.4, "dpo": 0.4, "reinforce": 0.2}
    every = max(1, steps // 30)
    return {
        "model": str(root / "model"),
        "data": data,
        "objective": {"demonstration": "sft", "pair": "dpo", "check": "reinforce"},
        "schedule": {"name": "maxright", "weights": weights},
        "optimum": {"given": {"sft": 0.0, "dpo": 0.0, "reinforce": -1.0}},
        "rollout": {"num_generations": 2, "max_completion_length": 6},
        "probe": {
            "steps": every,
            "retention": [{"name": "kept", "path": data[0]["path"]}],
        },
        "train": {
            **{"max_steps": steps, "batch_size": 4, "max_length": 64, "learning_rate": 1e-3},
            **{"logging_steps": 10, "eval_steps": every, "save_steps": every},
            **{"save_total_limit": 2, "lr_scheduler_type": "constant"},
        },
        "cache_dir": str(root / "cache"),
    }


def main() -> int:
    """1 where something grew."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--quick", action="store_true", help="6 steps")
    options = parser.parse_args()
    steps = TIMES if options.quick else options.steps
    watch = Watch(steps)
    with tempfile.TemporaryDirectory() as root:
        content = parse_recipe(recipe(Path(root), steps))
        carry_out(content, Path(root) / "out", say=silent, callbacks=[watch])
    first, last = watch.seen[0], watch.seen[-1]
    grown = f"{last[0] / first[0] - 1:+.1%} memory, {last[1] - first[1]:+d} files"
    print(f"{'flat' if watch.flat else 'NOT FLAT'}: {grown} from step {watch.every} to {steps}")
    return 0 if watch.flat or options.quick else 1


if __name__ == "__main__":
    sys.exit(main())
