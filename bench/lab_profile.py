"""What part of a lab run is spent in the model.

    python bench/lab_profile.py [--seed 0] [--work DIR] [--steps 192] [--times 3]
    python bench/lab_profile.py --quick      # seconds: that it runs, on a base of two steps

Two runs, one thread: pretraining (its first `--steps` steps) and a fine-tuning on demonstrations and
scores (objective uft, as `onestage demo` trains). The share is the time inside the model (forward pass
with the head, backward pass, optimiser) of the time from the beginning of the first step to the end of
the last one. What comes before (reading, encoding, self-check, reference) is told beside it. Processor
time is measured, for the machine may be busy with other work. Each run is done several times: told are
medians, and the least and the most. The base was trained for as many steps as are timed, which says
nothing of its quality and changes no time.

Writes bench/results/lab_profile.json; the table is in bench/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from onestage.models.policy import Policy
from onestage.studies.lab.ground import make_base, write_rows
from onestage.studies.lab.world import LabWorld
from onestage.training.callbacks import Callback
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe
from onestage.training.run import Run

FINE_TUNING = {
    "batch_size": 32,
    "learning_rate": 5e-4,
    "lr_scheduler_type": "cosine",
    "warmup_ratio": 0.1,
    "max_length": 96,
    "tokens_per_row": 256,
    "logging_steps": 16,
}
"""What the demo of the first lab trained with."""
RESULTS = Path(__file__).parent / "results" / "lab_profile.json"


class Stopwatch(Callback):
    """Times the steps of a run, and what is done in them."""

    def __init__(self) -> None:
        self.seconds = {"forward": 0.0, "backward": 0.0, "optimizer": 0.0}
        self.made = time.process_time()
        self.before = self.steps = self.tokens = 0.0

    def begin(self, run: Run) -> None:
        self.began = time.process_time()
        self.before = self.began - self.made
        for name in self.seconds:
            self.seconds[name] = 0.0
        run.accelerator.backward = self.timed("backward", run.accelerator.backward)  # type: ignore
        run.optimizer.register_step_pre_hook(lambda *_: self.count("optimizer", -1))
        run.optimizer.register_step_post_hook(lambda *_: self.count("optimizer", 1))
        policy: Policy = run.policy
        policy.look = self.timed("forward", policy.look)  # type: ignore[method-assign]

    def count(self, name: str, sign: int) -> None:
        self.seconds[name] += sign * time.process_time()

    def timed(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*given: Any, **named: Any) -> Any:
            start = time.process_time()
            found = work(*given, **named)
            self.seconds[name] += time.process_time() - start
            return found

        return wrapped

    def step(self, run: Run, loss: float) -> None:
        self.steps = run.step
        self.whole = time.process_time() - self.began
        self.tokens = run.tokens

    def told(self) -> dict[str, float]:
        """Seconds, and parts of the loop's."""
        model = sum(self.seconds.values())
        return {
            "steps": self.steps,
            "tokens": self.tokens,
            "before_the_loop_s": round(self.before, 2),
            "loop_s": round(self.whole, 2),
            "ms_a_step": round(1000 * self.whole / self.steps, 2),
            "tokens_a_second": round(self.tokens / self.whole),
            **{name: round(part / self.whole, 3) for name, part in self.seconds.items()},
            "in_the_model": round(model / self.whole, 3),
        }


def several(recipe: dict[str, Any], out: Path, times: int) -> dict[str, Any]:
    """The medians of a run that is done several times, and how far apart they lie."""
    runs = [measured(recipe, out) for _ in range(times)]
    found: dict[str, Any] = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    apart = ("ms_a_step", "tokens_a_second", "in_the_model")
    ends = {key: [f(run[key] for run in runs) for f in (min, max)] for key in apart}
    return {**found, "times": times, "least_most": ends}


def measured(recipe: dict[str, Any], out: Path) -> dict[str, float]:
    watch = Stopwatch()
    shutil.rmtree(out, ignore_errors=True)
    carry_out(parse_recipe(recipe), out, say=lambda _: None, callbacks=[watch])
    return watch.told()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=192)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "lab-profile")
    parser.add_argument(
        "--quick", action="store_true", help="two steps of everything; writes no results"
    )
    options = parser.parse_args()
    steps = min(2, options.steps) if options.quick else options.steps
    torch.set_num_threads(1)
    world = LabWorld(options.seed)
    times = 1 if options.quick else options.times
    base = make_base(world, options.work, seed=options.seed, steps=steps)
    files = write_rows(world, options.work / f"rows-{options.seed}")
    made = yaml.safe_load((base.parent / "recipe.yaml").read_text())
    found = {
        "pretraining": several(
            {**made, "train": {**made["train"], "max_steps": steps}},
            options.work / "pretraining",
            times,
        ),
        "fine-tuning": several(
            {
                "model": {"name": str(base)},
                "data": [
                    {"name": "demos", "path": str(files["demonstration.train"])},
                    {"name": "scores", "path": str(files["score.train"])},
                ],
                "objective": {"name": "uft", "beta": 0.01},
                "train": {**FINE_TUNING, "max_steps": steps},
                "cache_dir": str(options.work),
            },
            options.work / "fine-tuning",
            times,
        ),
    }
    told = {"threads": 1, "cpus": os.cpu_count(), "seed": options.seed, "runs": found}
    if not options.quick:
        RESULTS.write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
