"""An evaluation that is killed again and again, beside one that is left alone: the same numbers?

    python bench/killed.py FOLDER DATA [--items 300] [--kills 5] [--seed 0]

FOLDER: a model (SmolLM2-135M-Instruct, say); DATA: a folder that holds `gsm8k.test.jsonl.gz`. Problems
of GSM8K with four numbers to choose from are asked by `onestage evaluate` in a process of its own, which
is ended by SIGKILL, and begun again by the same command. The kills are spread over the whole of it: the
first falls before any answer is kept, the last when few are missing, each at a random moment of a block.
Answers (to the last bit), numbers and intervals must be those of the one that was left alone.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from evaluate import sums, task

from onestage.rollout.suites import BLOCK


class Evaluation:
    """`onestage evaluate` into a folder, in a process of its own."""

    def __init__(self, model: str, suite: str, out: Path) -> None:
        self.out, self.log = out, out.with_suffix(".log")
        words = ["evaluate", model, "--suite", suite, "--out", str(out), "--dtype", "float32"]
        with self.log.open("a") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "onestage", *words],
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ask(self) -> bool:
        """Wait until it asks; whether it does."""
        said = self.log.read_text().count(" items")
        while self.process.poll() is None:
            # A line when the suite was read, and one when asking begins.
            if self.log.read_text().count(" items") >= said + 2:
                return True
            time.sleep(0.05)
        return False

    def reach(self, count: int) -> bool:
        """Wait until so many answers are kept; whether it goes on then."""
        while self.process.poll() is None:
            if self.answered >= count:
                return True
            time.sleep(0.05)
        return False

    def kill(self) -> bool:
        """Whether there was anything to kill."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait() == -signal.SIGKILL

    def wait(self) -> None:
        if self.process.wait():
            raise RuntimeError(self.log.read_text()[-2000:])

    @property
    def answered(self) -> int:
        return len(self.answers())

    def answers(self) -> dict[str, Any]:
        """By item; half a line counts as none."""
        found = {}
        for file in (self.out / "answers").glob("*.jsonl"):
            for line in [] if "scores" in file.name else file.read_text().split("\n")[:-1]:
                try:
                    told = json.loads(line)
                except ValueError:
                    continue
                found[told["id"]] = told["answer"]
        return found

    def numbers(self) -> Any:
        content = json.loads((self.out / "evaluation.json").read_text())
        return [one["suites"] for one in content["models"]]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("data", type=Path)
    parser.add_argument("--items", type=int, default=300)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    draw = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as place:
        suite = task(Path(place), "sums", sums(given.data, given.items), 0)
        whole = Evaluation(given.folder, suite, Path(place) / "whole")
        whole.ask()
        began = time.monotonic()
        whole.wait()
        took = time.monotonic() - began
        print(f"left alone: {whole.answered} items, {took:.1f} s from the first to the last")
        kills = 0
        block = took * min(BLOCK, given.items) / given.items
        for number in range(given.kills):
            one = Evaluation(given.folder, suite, Path(place) / "killed")
            if not (one.ask() and one.reach(given.items * number // given.kills)):
                break
            time.sleep(draw.uniform(0, block / 3))  # the last block is a short one
            kills += one.kill()
            print(f"kill {number + 1}: {one.answered} items are known", flush=True)
        last = Evaluation(given.folder, suite, Path(place) / "killed")
        last.wait()
        same = last.numbers() == whole.numbers() and last.answers() == whole.answers()
        (headline,) = (one["sums"]["metrics"]["average"] for one in last.numbers())
        print(
            f"{kills} kills; {last.answered} items; average {headline['value']:.4f} "
            f"± {headline['stderr']:.4f}; {'the same' if same else 'OTHER'} answers and numbers"
        )
    return 0 if same and kills == given.kills else 1


if __name__ == "__main__":
    sys.exit(main())
