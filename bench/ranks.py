"""One run on 1, 2 and 4 ranks, weights whole and in parts: the same losses, and what each rank holds.

    python bench/ranks.py                       # a tiny Llama: 100 steps, adapters and all weights
    python bench/ranks.py --model FOLDER --steps 6 --layouts "2 whole" "2 in parts"
    python bench/ranks.py --quick               # seconds: that it runs; writes no results

Ranks are processes of gloo on the CPU, so times say how much more work there is, not how fast as many
devices are. Memory is what a rank holds after a step: weights, gradients and the optimiser's state, in
bytes of this rank's own numbers, against the one process. Useful work is the part of all ranks' time, if
it went by tokens, in which none waits for the busiest (12 records a step; `deal.py` has 32 real ones).
Losses are compared with those of one process, step by step; beside them stands one process whose records
fall into other rows, which changes the order of sums and no more. Lines that are measured anew take the
place of those of the same run in the file of figures; the others stay.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import torch
from support.ranks import on_ranks
from support.tiny import TINY, make_tokenizer, write_rows

from onestage.data.packing import Row
from onestage.models.sharding import local
from onestage.runfolder import read_metrics, silent
from onestage.training.callbacks import Callback
from onestage.training.pipeline import carry_out
from onestage.training.recipe import parse_recipe
from onestage.training.run import Run

LAYOUTS = {
    "1": (1, "none", 1),
    "1, other rows": (1, "none", 1),
    "2 whole": (2, "none", 1),
    "2 in parts": (2, "full", 1),
    "4 whole": (4, "none", 1),
    "4 in parts": (4, "full", 1),
    "4 as two copies": (4, "hybrid", 2),
}
"""Ranks, sharding, nodes."""
RESULTS = Path(__file__).parent / "results" / "ranks.json"
TRAINED = {"adapters": {"lora": {"r": 8}}, "all weights": {}}
QUICK = {"steps": 2, "layouts": ["2 in parts"], "tasks": ["maxright"], "trained": ["adapters"]}
WORDS = ("sea", "wind", "moon", "poem", "Paris", "red", "hello", "morning")
CLOSE, PART = 1e-6, 0.30
"""Targets: difference of a loss, and what a rank of four in parts may hold of the whole."""
VOWELS = "def vowels(completion, **row):\n    return sum(c in 'aeiou' for c in completion) / 8\n"


def tasks(root: Path, model: str | None, steps: int) -> dict[str, dict[str, Any]]:
    """Recipes: uft on every kind of feedback, maxright, and grpo."""
    (root / "judge.py").write_text(VOWELS)
    rows: dict[str, list[dict[str, Any]]] = {
        "demos": [{"prompt": f"Q {w}?", "completion": f" the {w}."} for w in WORDS],
        "scores": [
            {"prompt": f"Q {w}?", "completion": f" a {w}", "score": n / 8}
            for n, w in enumerate(WORDS)
        ],
        "labels": [
            {"prompt": f"Q {w}?", "completion": f" some {w}", "label": len(w) > 4} for w in WORDS
        ],
        "pairs": [{"prompt": f"Q {w}?", "chosen": f" the {w}", "rejected": " no"} for w in WORDS],
        "groups": [
            {"prompt": f"Q {w}?", "completions": [f" {w}", " no", f" {w}!"], "scores": [1, 0, 0.5]}
            for w in WORDS
        ],
        "texts": [{"text": f"the {w} and the {w} are red"} for w in WORDS],
    }
    data = [{"name": k, "path": str(write_rows(root / f"{k}.jsonl", v))} for k, v in rows.items()]
    asked = write_rows(root / "asked.jsonl", [{"prompt": f"{w}?", "answer": w} for w in WORDS])
    judged = {"reward": {"name": "function", "path": f"{root / 'judge.py'}:vowels"}}
    train = {"max_steps": steps, "learning_rate": 5e-5, "lr_scheduler_type": "constant"}
    train |= {"batch_size": 12, "max_length": 64, "tokens_per_row": 128, "logging_steps": 1}
    base = {"model": _model(root, model), "train": train, "objective": {"name": "uft"}}
    pairs = {"data": [data[0], data[3]], "objective": {"demonstration": "sft", "pair": "dpo"}}
    best = {"given": {"sft": 0.1, "dpo": 0.01}}
    group = {"data": [{"name": "asked", "path": str(asked), **judged}], "objective": "grpo"}
    short = {"max_completion_length": 8, "num_generations": 4}
    return {
        "uft on all kinds": {**base, "data": data},
        "maxright": {**base, **pairs, "schedule": "maxright", "optimum": best},
        "grpo": {**base, **group, "rollout": short, "train": {**train, "batch_size": 4}},
    }


def _model(root: Path, name: str | None) -> dict[str, Any]:
    if name:
        return {"name": name, "dtype": "float32"}
    make_tokenizer().save_pretrained(root / "tokenizer")
    sizes = {**TINY, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4}
    return {"config": {"model_type": "llama", **sizes}, "tokenizer": str(root / "tokenizer")}


class Watching(Callback):
    """What this rank holds after a step, in bytes, and which part of all ranks' time is work: nodes of
    the trees against what as many ranks as busy as the busiest would do."""

    def __init__(self) -> None:
        self.held = 0.0
        self.nodes = self.room = 0

    def begin(self, run: Run) -> None:
        ranks, deal = run.devices.ranks, run.devices.deal

        def counted(rows: Sequence[Row]) -> list[Row]:
            held = [sum(map(len, rows[rank::ranks])) for rank in range(ranks)]
            self.nodes, self.room = self.nodes + sum(held), self.room + ranks * max(held)
            return deal(rows)

        run.devices.deal = counted  # type: ignore[method-assign]

    def look(self, run: Run) -> None:
        tensors = [*run.policy.parameters()]
        tensors += [p.detach() for p in run.policy.parameters() if p.requires_grad]  # gradients
        for state in run.optimizer.state.values():
            tensors += [value for value in state.values() if isinstance(value, torch.Tensor)]
        self.held = float(sum(local(t).numel() * t.element_size() for t in tensors))

    def step(self, run: Run, loss: float) -> None:
        if run.step == 1:
            self.look(run)


def work(recipe: dict[str, Any], out: Path) -> tuple[list[dict[str, Any]], float, float, float]:
    """Metrics, seconds, bytes on this rank and useful work of a run."""
    watching, began = Watching(), time.perf_counter()
    carry_out(parse_recipe(recipe), out, say=silent, callbacks=[watching])
    useful = watching.nodes / max(watching.room, 1)  # of the main process, which alone is watched
    return read_metrics(out), time.perf_counter() - began, watching.held, useful


def row(
    task: str, how: str, layout: str, recipe: dict[str, Any], root: Path, alone: Any
) -> tuple[dict[str, Any], Any]:
    """A line of the table, and what was measured."""
    ranks, sharding, nodes = LAYOUTS[layout]
    place = root / f"{task}-{how}-{layout}".replace(" ", "_")
    told = {**copy.deepcopy(recipe), "cache_dir": str(place / "cache")}
    if layout == "1, other rows":
        told["train"]["tokens_per_row"] = 96
    if sharding != "none":
        told["distributed"] = {"sharding": sharding}
    if ranks == 1:
        found = work(told, place / "run")
    else:
        found = on_ranks(ranks, work, told, place / "run", nodes=nodes, seconds=1800)[0]
    metrics, seconds, held, useful = found
    one, _, whole, _ = alone or found
    both = [(a["loss"], b["loss"]) for a, b in zip(one, metrics, strict=True)]
    apart = max(abs(a - b) for a, b in both)
    relative = max(abs(a - b) / max(abs(a), 1.0) for a, b in both)
    model = Path(recipe["model"].get("name") or "tiny Llama").name
    line = {"model": model, "task": task, "trained": how, "ranks": layout, "steps": len(metrics)}
    line |= {"seconds": round(seconds, 1), "loss_apart": apart, "held": round(held / whole, 3)}
    line["loss_apart_relative"] = float(f"{relative:.2g}")
    return line | {"useful": round(useful, 3)}, found


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    head = ["task", "trained", "ranks", "steps", "seconds", "largest difference of a loss"]
    head.append("against the loss, where that is above 1")
    rows = [[*head, "held by a rank", "useful work"], ["---"] * 9]
    for one in lines:
        close = "" if one["loss_apart_relative"] <= CLOSE else " MISSED"
        part = " MISSED" if one["ranks"] == "4 in parts" and one["held"] > PART else ""
        cells = [one["task"], one["trained"], one["ranks"], one["steps"], one["seconds"]]
        told = [f"{one['loss_apart']:.1e}", f"{one['loss_apart_relative']:.1e}{close}"]
        told.append(f"{one['held']:.0%}{part}")
        rows.append([*cells, *told, f"{one['useful']:.0%}"])
    return "\n".join("| " + " | ".join(map(str, cells)) + " |" for cells in rows)


def renewed(file: Path, lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of a file of figures, with those that were measured anew in the place of the old."""
    old = json.loads(file.read_text()) if file.exists() else []

    def key(line: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(line[name] for name in ("model", "task", "trained", "ranks"))

    new = {key(line): line for line in lines}
    return [new.pop(key(line), line) for line in old] + list(new.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--model", help="a folder; default: a tiny Llama")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--layouts", nargs="*", default=list(LAYOUTS), choices=list(LAYOUTS))
    parser.add_argument("--tasks", nargs="*", help="some of the tasks by name")
    parser.add_argument("--trained", nargs="*", default=list(TRAINED), choices=list(TRAINED))
    parser.add_argument("--quick", action="store_true", help="two steps on two ranks: seconds")
    parser.add_argument(
        "--out", type=Path, help="a file of figures; default: that of results/, if not --quick"
    )
    options = parser.parse_args()
    if options.quick:
        vars(options).update(QUICK)
    lines: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for task, recipe in tasks(Path(folder), options.model, options.steps).items():
            for how in options.trained if task in (options.tasks or [task]) else ():
                told = copy.deepcopy(recipe)
                told["model"] |= TRAINED[how]
                alone: Any = None
                for layout in dict.fromkeys(["1", *options.layouts]):
                    line, found = row(task, how, layout, told, Path(folder), alone)
                    alone = alone or found
                    lines.append(line)
                    print(line, flush=True)
    print(table(lines))
    file = options.out or (None if options.quick else RESULTS)
    if file:
        file.write_text(json.dumps(renewed(file, lines), indent=1) + "\n")


if __name__ == "__main__":
    main()
